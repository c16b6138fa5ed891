"""The one configuration of all sidecars, and how it is edited while they run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

TENANTS: Mapping[str, str] = {name: f"key-of-{name}-0123456789" for name in ("red", "blue", "tight")}
ECHOES = ("echo-a", "echo-b")
DIALECTS: Mapping[str, tuple[str, str]] = {  # upstream: provider, path at the simulator
    "sim-openai": ("openai", "/openai/v1"),
    "sim-anthropic": ("anthropic", "/anthropic"),
    "sim-ollama": ("ollama", "/ollama"),
    "sim-vllm": ("vllm", "/vllm"),
}
ROUTES: Mapping[str, tuple[str, ...]] = {  # the first part of a model's name: the targets in their order
    "plain": ECHOES,
    "kept": ECHOES,
    "hedged": ECHOES,
    "claude": ("sim-anthropic", "sim-ollama"),
    "llama": ("sim-vllm", "sim-openai"),
    **{f"only_{name.replace('-', '_')}": (name,) for name in (*ECHOES, *DIALECTS)},
}
TARGET_MODELS: Mapping[str, str] = {
    "sim-openai": "gpt-4o-mini",
    "sim-anthropic": "claude-haiku-4-5",
    "sim-ollama": "qwen3",
    "sim-vllm": "meta-llama/Llama-3.1-8B-Instruct",
}
KEPT_SECONDS = 20
CALL_SECONDS = 12.0  # no call may last longer
DRAIN_SECONDS = 15.0  # longer than any call
OPEN_SECONDS = 1.5  # of a circuit
TIMEOUTS = {"connect_seconds": 1.0, "first_token_seconds": 2.0, "idle_seconds": 2.0, "total_seconds": 4.0}
PRICES = {"plain-*": {"input_per_million": 3.0, "output_per_million": 11.0}}


def configuration(upstreams: Mapping[str, str], redis: str, edit: int = 0) -> str:
    """The file's text.

    Args:
        upstreams: their base URLs.
        edit: makes another valid configuration of it, which serves the same calls.
    """
    limits = {"concurrent": 400 if edit % 3 else 300, "requests_per_minute": 100_000, "tokens_per_minute": 10_000_000}
    tree = {
        "server": {
            "callers": [
                {"name": "red", "key": TENANTS["red"], "limits": limits, "budget": {"daily_usd": 1000}},
                {"name": "blue", "key": TENANTS["blue"], "limits": {"concurrent": 300}},
                {"name": "tight", "key": TENANTS["tight"], "limits": {"requests_per_minute": 45}},
            ],
            "drain_seconds": DRAIN_SECONDS,
            "keep_alive_seconds": 1.0,
        },
        "upstreams": {name: _upstream(name, url, edit) for name, url in upstreams.items()},
        "routes": [_route(name, targets, edit) for name, targets in ROUTES.items()],
        "redis": {"url": redis},
        "cache": {"memory": {"max_bytes": "4MiB"}, "redis": {}},
    }
    if edit % 4 == 2:
        tree["routes"].append({"name": "new", "match": {"model": "new-*"}, "targets": [{"upstream": "echo-a"}]})  # type: ignore[attr-defined]
    return yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False)  # no aliases: they are refused


def _upstream(name: str, url: str, edit: int) -> dict[str, Any]:
    provider, _ = DIALECTS.get(name, ("openai", ""))
    settings: dict[str, Any] = {
        "provider": provider,
        "base_url": url,
        "api_key": "ours",
        "timeouts": TIMEOUTS,
        "circuit": {"open_seconds": OPEN_SECONDS, "trial_calls": 2},
        "labels": {"edit": str(edit)},
    }
    if name == "echo-a":
        settings["health_check"] = {"kind": "connect", "interval_seconds": 1}
        settings["limits"] = {"concurrent": 300, "queue_seconds": 1}
    if name in ECHOES:
        settings["prices"] = {**PRICES, "kept-*": {"input_per_million": 1.0 + edit, "output_per_million": 2.0}}
    return settings


def _route(name: str, targets: tuple[str, ...], edit: int) -> dict[str, Any]:
    route: dict[str, Any] = {
        "name": name,
        "match": {"model": f"{name}-*"},
        "targets": [
            {"upstream": each} | ({"model": TARGET_MODELS[each]} if each in TARGET_MODELS else {}) for each in targets
        ],
        "total_seconds": CALL_SECONDS,
        "retry": {"longest_wait_seconds": 1.0 + edit % 2},
    }
    if name == "hedged":
        route["hedge"] = {"after_seconds": 0.25, "budget": 0.3}
    if name == "kept":
        route["cache"] = {
            "ttl_seconds": KEPT_SECONDS, "any_temperature": True, "join_seconds": 1.0,
            "stale_if_error_seconds": 10, "stale_while_revalidate_seconds": 5,
        }  # fmt: skip
    return route


BROKEN: Mapping[str, Callable[[str], str]] = {
    "no YAML": lambda text: text.replace("routes:", "routes: [", 1),
    "an unknown key": lambda text: text.replace("drain_seconds", "drain_second", 1),
    "a target that is not there": lambda text: text.replace("upstream: echo-b", "upstream: echo-z", 1),
    "cut in its middle": lambda text: text[: text.index("base_url") + 4],
    "empty": lambda text: text[:0],
}
"""Ways to spoil a file's text."""
