"""Colours that mean the same in every panel, and where a click leads."""

from typing import Any

Override = dict[str, Any]

CIRCUIT_STEPS: list[dict[str, Any]] = [
    {"color": "green", "value": None},
    {"color": "yellow", "value": 1},
    {"color": "red", "value": 2},
]
_OUTCOMES = {
    "ok": "green", "caller_error": "light-blue", "limited": "yellow", "hangup": "purple", "upstream_error": "red",
    "cut": "dark-red", "proxy_error": "dark-orange",
}  # fmt: skip
# What is wrong with an upstream; a clock's name may follow `TooSlow`.
_FAILURES = {
    "Overloaded|PoolFull": "orange", "Limited": "yellow", "TooSlow.*": "purple", "Broken": "red",
    "CutShort": "dark-red", "Unreachable": "dark-orange", "CredentialRefused|PermissionRefused|PaidOut": "dark-purple",
    "RequestRefused|ContextExceeded|ContentRefused|ModelMissing|CallerKeyRefused|CallerNotPermitted": "light-blue",
}  # fmt: skip


def states(*names: tuple[str, str]) -> list[dict[str, Any]]:
    """Words and colours instead of the numbers from 0 on."""
    shown = {str(place): {"text": name, "color": shade, "index": place} for place, (name, shade) in enumerate(names)}
    return [{"type": "value", "options": shown}]


def two_states(bad: str, good: str) -> list[dict[str, Any]]:
    """0 is bad, 1 is good."""
    return states((bad, "red"), (good, "green"))


def colour(name: str, shade: str, **more: Any) -> Override:
    """One series, in one colour; `more` are other properties of it, such as `lineWidth` below `custom`."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [_fixed(shade), *_custom(more)]}


def matching(pattern: str, shade: str | None = None, **more: Any) -> Override:
    """All series whose names fit a regular expression, in one colour or each in its own."""
    properties = [*([_fixed(shade)] if shade else ()), *_custom(more)]
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": properties}


def dashed(name: str, shade: str) -> Override:
    """A limit: a dashed line without an area."""
    return colour(name, shade, lineStyle={"fill": "dash", "dash": [10, 10]}, fillOpacity=0, lineWidth=1)


def _fixed(shade: str) -> dict[str, Any]:
    return {"id": "color", "value": {"mode": "fixed", "fixedColor": shade}}


def _custom(properties: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": f"custom.{key}", "value": value} for key, value in properties.items()]


def _only(variable: str) -> Override:
    keep = ("datasource", "job", "namespace", "pod", "instance", "route", "upstream", "model")
    kept = "&".join(f"${{{name}:queryparam}}" for name in keep if name != variable)
    label = f"__field.labels.{variable}"
    return {
        "title": f"Only {variable} ${{{label}}}",
        "url": f"/d/octet/octet?${{__url_time_range}}&{kept}&var-{variable}=${{{label}:percentencode}}",
    }


CIRCUIT = states(("Closed", "green"), ("Half-open", "yellow"), ("Open", "red"))
OUTCOMES = [colour(name, shade) for name, shade in _OUTCOMES.items()]
FAILURES = [matching(f"(^| )({kinds})$", shade) for kinds, shade in _FAILURES.items()]
QUANTILES = [
    colour("p50", "blue", lineWidth=1, fillOpacity=0),
    colour("p95", "orange", lineWidth=2),
    colour("p99", "purple", lineWidth=1, fillOpacity=0),
]
MODES = [colour("json", "blue"), colour("stream", "orange")]

ONLY_UPSTREAM = [_only("upstream")]
ONLY_MODEL = [_only("model")]
ONLY_ROUTE = [_only("route")]
ONLY_INSTANCE = [_only("instance")]
