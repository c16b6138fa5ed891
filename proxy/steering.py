"""The commands that tell what a configuration does, and what another one would change; nothing is sent."""

import json
import urllib.request
from argparse import Namespace
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from proxy.call import Json
from proxy.config import Config, differences
from proxy.errors import InvalidRequest
from proxy.explain import explain
from proxy.forecast import Forecast, forecast, read_served
from proxy.generations import Generations
from proxy.telemetry import Telemetry

PATIENCE_SECONDS = 10.0
_straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the token is for nobody on the way


async def explained(config: Config, options: Namespace) -> Json:
    """What would become of the call that the options describe; raises ProxyError when they describe none."""
    generations = Generations(config, Telemetry(lambda _: None))
    try:
        snapshot = generations.commit(await generations.prepare(config), 1)
        return explain(snapshot, _asked(options))
    except UnicodeEncodeError as error:
        raise InvalidRequest("what is asked is not UTF-8") from error
    finally:
        await generations.close()


def _asked(options: Namespace) -> Json:
    asked: Json = {"headers": dict(map(_header, options.header or ())), "operation": options.operation}
    if options.body is not None:
        try:
            asked["body"] = json.loads(Path(options.body).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"{options.body} holds no call: {error}") from error
    for name in ("model", "caller"):
        if getattr(options, name) is not None:
            asked[name] = getattr(options, name)
    if options.stream:
        asked["stream"] = True
    return asked


def _header(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InvalidRequest(f"write a header as NAME=VALUE, not {text!r}")
    return name, value


def explanation(told: Json) -> Iterator[str]:
    """The same for people."""
    return map(_plain, _explanation(told))


def _plain(line: str) -> str:
    """A line that steers no terminal, whatever callers wrote."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def _explanation(told: Json) -> Iterator[str]:
    tokens = told["tokens"]
    mode, caller = " (stream)" if told["stream"] else "", f" of {told['caller']}" if told["caller"] else ""
    yield f"{told['model']}{mode}{caller}: about {tokens['prompt']} tokens, and at most {tokens['answer']} of answer"
    for index, passed in enumerate(told["passed_over"]):
        yield f"  {'' if index else 'passed over':12} {passed['route']}: {passed['because']} does not fit"
    if told["route"] is not None:
        yield f"  {'route':12} {told['route']} ({told['strategy']})"
    for index, target in enumerate(told["targets"]):
        here = told["first"] is not None and index == told["targets"].index(_first(told))
        yield f"  {'' if index else 'targets':12} {index + 1}. {_target(target)}{' <- goes here' if here else ''}"
    for index, skipped in enumerate(told.get("skipped", ())):
        yield f"  {'' if index else 'skipped':12} {_place(skipped)}: {skipped['because']}"
    if "mirror" in told:
        yield f"  {'copies':12} {_place(told['mirror'])} ({told['mirror']['share']:.1%})"
    if "cache" in told:
        cache = told["cache"]
        text = f"key {cache['key']}, tenant {cache['tenant']}" if cache["cacheable"] else f"no: {cache['because']}"
        yield f"  {'cache':12} {text}"
    if "refused" in told:
        yield f"  {'refused':12} {told['refused']['status']} {told['refused']['code']}: {told['refused']['message']}"


def _place(target: Json) -> str:
    return f"{target['upstream']}/{target['model']}"


def _first(told: Json) -> Json:
    """The target that is tried first."""
    first: Json = told["first"]
    return next(target for target in told["targets"] if all(target[name] == first[name] for name in first))


def _target(target: Json) -> str:
    notes = ["fallback"] if target["fallback"] else []
    notes += [f"{name} {target[name]}" for name in ("weight", "score") if target.get(name) is not None]
    notes += [f"{name}={value}" for name, value in target["labels"].items()]
    if target["estimated_cost_usd"] is not None:
        notes.append(f"at most ${target['estimated_cost_usd']:.6f}")
    if target["dropped"]:
        notes.append(f"drops {', '.join(target['dropped'])}")
    notes += [text for text in (target["because"], target["refuses"]) if text]
    told = f" ({'; '.join(notes)})" if notes else ""
    return f"{_place(target)}{told}"


def compared(old: Config, new: Config, lines: Iterable[Json] | None) -> Iterator[str]:
    """What is different, and what that would have meant for calls that were served."""
    changes = differences(old, new)
    yield from (f"  {change}" for change in changes) if changes else ["  no difference"]
    if lines is not None:
        yield from map(_plain, _told(forecast(old, new, read_served(lines))))


def _told(told: Forecast) -> Iterator[str]:
    elsewhere, refused, unknown = sum(told.elsewhere.values()), told.refused.total(), told.unknown.total()
    yield (
        f"of {told.calls} calls: {told.same:.0f} would go where they went, {elsewhere:.0f} elsewhere, "
        f"{refused} would be refused, of {unknown} it cannot be told"
    )
    for (before, after), count in sorted(told.elsewhere.items(), key=lambda each: -each[1]):
        if count >= 0.5:
            yield f"  {count:.0f}  {before}  ->  {after}"
    for title, counts in (("refused", told.refused), ("cannot be told", told.unknown)):
        for route, count in counts.most_common():
            yield f"  {count}  {route}  ->  {title}"


def log_lines(file: str) -> Iterator[Json]:
    """The lines of an access log that are such; others, such as a pod's own words, are passed over."""
    with Path(file).open("rb") as log:
        for line in log:
            try:
                told = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(told, dict):
                yield told


def recent_calls(url: str, token: str | None) -> list[Json]:
    """The calls that a running sidecar remembers, by the address of its admin listener; raises OSError."""
    request = urllib.request.Request(f"{url.rstrip('/')}/admin/calls?limit=1000")  # noqa: S310  # an operator's own
    if token is not None:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with _straight.open(request, timeout=PATIENCE_SECONDS) as answer:
            told: Any = json.load(answer)
    except (HTTPException, RecursionError) as error:
        raise OSError(f"it is no sidecar ({type(error).__name__})") from error
    calls = told.get("calls") if isinstance(told, dict) else None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise OSError("it is no sidecar: there are no calls in its answer")
    return calls
