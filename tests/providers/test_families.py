"""A model's name tells what it takes; YAML has the last word."""

from typing import Any, get_args

import pytest

from proxy.config import Config, ConfigError
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits as known_providers
from proxy.providers.anthropic.families import (
    Family,
    Sampling,
    Thinking,
    Traits,
    Version,
    Without,
    name,
    traits,
    version,
)

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"

# Names as Anthropic, its resellers' gateways and callers' configurations spell them.
NAMES = {
    "claude-3-haiku-20240307": ((3, 0), "haiku"),
    "claude-3-opus-latest": ((3, 0), "opus"),
    "claude-3-5-sonnet-20241022": ((3, 5), "sonnet"),
    "claude-3-5-haiku-latest": ((3, 5), "haiku"),
    "claude-3-7-sonnet-20250219": ((3, 7), "sonnet"),
    "claude-3-7-sonnet-latest": ((3, 7), "sonnet"),
    "claude-sonnet-4-20250514": ((4, 0), "sonnet"),
    "claude-sonnet-4-0": ((4, 0), "sonnet"),
    "claude-opus-4": ((4, 0), "opus"),
    "claude-opus-4-1-20250805": ((4, 1), "opus"),
    "claude-opus-4-1": ((4, 1), "opus"),
    "claude-sonnet-4-5-20250929": ((4, 5), "sonnet"),
    "claude-haiku-4-5": ((4, 5), "haiku"),
    "claude-haiku-4-5-20251001": ((4, 5), "haiku"),
    "claude-opus-4-6": ((4, 6), "opus"),
    "claude-opus-4-8": ((4, 8), "opus"),
    "claude-opus-5": ((5, 0), "opus"),
    "claude-opus-5-20260618": ((5, 0), "opus"),
    "claude-sonnet-5-5": ((5, 5), "sonnet"),
    "claude-haiku-5-5-latest": ((5, 5), "haiku"),
    "claude-fable-5-1": ((5, 1), "fable"),
    "claude-mythos-5-2": ((5, 2), "mythos"),
    "claude-opus-10-12": ((10, 12), "opus"),
    "claude-sonnet-4-5@20250929": ((4, 5), "sonnet"),
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": ((4, 5), "sonnet"),
    "anthropic/claude-opus-4-1": ((4, 1), "opus"),
    "anthropic.claude-opus-4-6-v1": ((4, 6), "opus"),
    "claude-opus-4-6-thinking": ((4, 6), "opus"),
    "claude-opus-4.6": ((4, 6), "opus"),
    "claude-3-5-sonnet-20241022-v2:0": ((3, 5), "sonnet"),
    "claude-opus-4@20250514": ((4, 0), "opus"),
    "gpt-5": ((0, 0), ""),
    "claude": ((0, 0), ""),
    "my-model": ((0, 0), ""),
    "": ((0, 0), ""),
}


def of(model: str, api_version: str = OLD_VERSION, **overruled: Family) -> Traits:
    return traits(model, api_version, overruled)


@pytest.mark.parametrize(("model", "told"), NAMES.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_name_tells(model: str, told: tuple[tuple[int, int], str]) -> None:
    """Version and family are read from both generations of names, dated or not; a date is no version."""
    assert (version(model), name(model)) == (Version(*told[0]), told[1])


@pytest.mark.parametrize(
    ("model", "sampling"),
    [
        ("claude-3-5-haiku-latest", "both"),
        ("claude-3-7-sonnet-latest", "both"),
        ("claude-opus-4-20250514", "one"),
        ("claude-haiku-4-5", "one"),
        ("claude-sonnet-4-6", "one"),
        ("claude-opus-4-7", "none"),
        ("claude-sonnet-5", "none"),
        ("claude-fable-5-1", "none"),
        ("unknown", "both"),
    ],
)
def test_sampling(model: str, sampling: Sampling) -> None:
    """Temperature and top_p: both until 3.x, one of them in 4.x, none from 4.7 on nor with the new API version."""
    assert of(model).sampling == sampling
    assert of(model, NEW_VERSION).sampling == "none"


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-3-5-sonnet-20241022", "none"),
        ("unknown", "none"),
        ("claude-3-7-sonnet-20250219", "manual"),
        ("claude-opus-4-1", "manual"),
        ("claude-sonnet-4-5", "manual"),
        ("claude-opus-4-6", "adaptive"),
        ("claude-sonnet-4-6", "adaptive"),
        ("claude-mythos-5-1", "adaptive"),
    ],
)
def test_thinking(model: str, thinking: Thinking) -> None:
    """No thinking before 3.7, budgets to 4.5, efforts from 4.6 on."""
    assert of(model).thinking == thinking


@pytest.mark.parametrize(
    ("model", "without"),
    [
        *((model, "disabled") for model in ("claude-opus-4-6", "claude-opus-4-8", "claude-sonnet-4-6")),
        *((model, "disabled") for model in ("claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5")),
        ("claude-sonnet-5-5", "between_tools"),
        *((model, "low_effort") for model in ("claude-opus-5-5", "claude-fable-5", "claude-mythos-5-1")),
    ],
)
def test_how_thinking_is_switched_off(model: str, without: Without) -> None:
    """Where it cannot be, the nearest that the model takes stands in."""
    assert of(model).without_thinking == without


@pytest.mark.parametrize(("model", "is_later"), [("claude-opus-4-6", False), ("claude-opus-4-7", True)])
def test_what_came_with_4_7(model: str, is_later: bool) -> None:
    """From 4.7 on there is an effort more, and thinking is shown only on demand."""
    assert ("xhigh" in of(model).efforts) is is_later
    assert of(model).shows_thinking is not is_later


@pytest.mark.parametrize(
    ("model", "can_be_forced"),
    [
        *((model, True) for model in ("claude-haiku-4-5", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-5")),
        *((model, True) for model in ("claude-fable-5", "claude-mythos-5", "claude-haiku-5-5", "unknown")),
        *((model, False) for model in ("claude-fable-5-1", "claude-fable-5-2", "claude-mythos-5-1")),
        *((model, False) for model in ("claude-opus-5-5", "claude-sonnet-5-5")),
    ],
)
def test_forced_tools(model: str, can_be_forced: bool) -> None:
    """The newest of four families refuse it."""
    assert of(model).forced_tools is can_be_forced


@pytest.mark.parametrize(
    ("model", "prefill", "json_schema"),
    [
        ("claude-3-7-sonnet-latest", True, False),
        ("claude-opus-4-0", True, False),
        ("claude-sonnet-4-0", True, False),
        ("claude-opus-4-1", True, True),
        ("claude-haiku-4-5", True, True),
        ("claude-opus-4-6", False, True),
        ("claude-fable-5", False, True),
        ("unknown", True, True),
    ],
)
def test_prefill_and_schemas(model: str, prefill: bool, json_schema: bool) -> None:
    """The assistant may begin its answer before 4.6; schemas hold with 4.5, Opus 4.1, and perhaps unknown models."""
    assert (of(model).prefill, of(model).json_schema) == (prefill, json_schema)


def test_the_first_glob_that_fits_counts() -> None:
    """What YAML says of a model overrules its name, field by field; further globs are not looked at."""
    rules = {"claude-next-*": Family(thinking="adaptive", prefill=False), "claude-*": Family(sampling="none")}
    changed = traits("claude-next-1", OLD_VERSION, rules)
    plain = of("claude-next-1")
    assert (changed.thinking, changed.prefill, changed.sampling) == ("adaptive", False, plain.sampling)
    assert traits("claude-opus-4-1", OLD_VERSION, rules).sampling == "none"
    assert traits("Claude-Next-1", OLD_VERSION, rules) == of("Claude-Next-1")


def test_every_trait_can_be_overruled() -> None:
    """A family has a field for each trait, and `false` counts as said."""
    assert set(Family.model_fields) == set(Traits.__slots__)
    said = Family(efforts=("low",), shows_thinking=False, forced_tools=False, prefill=False, json_schema=False)
    changed = traits("claude-3-opus-latest", OLD_VERSION, {"*": said})
    assert (changed.efforts, changed.shows_thinking, changed.forced_tools) == (("low",), False, False)
    assert (changed.prefill, changed.json_schema, changed.sampling) == (False, False, "both")


def configured(family: Any) -> Config:
    upstream = {"provider": "anthropic", "settings": {"families": {"claude-next-*": family}}}
    return build(Document("octet.yaml", {"upstreams": {"up": upstream}}), known_providers())


def test_families_come_from_yaml() -> None:
    """The configuration describes a model that appears tomorrow."""
    settings = configured({"thinking": "adaptive", "efforts": ["low", "high"]}).upstreams["up"].settings
    changed = traits("claude-next-1", settings.version, settings.families)
    assert (changed.thinking, changed.efforts) == ("adaptive", ("low", "high"))


@pytest.mark.parametrize(
    ("family", "place"),
    [
        ({"thinking": "much"}, "thinking"),
        ({"efforts": ["tiny"]}, "efforts[0]"),
        ({"thinking": "adaptive", "efforts": []}, "efforts"),
        ({"forced_tools": "no"}, "forced_tools"),
        ({"thinks": True}, "thinks"),
    ],
)
def test_mistakes_in_families_have_their_place(family: Any, place: str) -> None:
    """A misspelt word is found at start."""
    with pytest.raises(ConfigError) as caught:
        configured(family)
    assert f"upstreams.up.settings.families.claude-next-*.{place}" in str(caught.value)


def test_every_trait_has_a_known_value() -> None:
    """No name leads to a trait that the request cannot be written for."""
    for model in NAMES:
        taken = of(model)
        assert taken.sampling in get_args(Sampling)
        assert taken.thinking in get_args(Thinking)
        assert taken.without_thinking in get_args(Without)
        assert taken.efforts[0] == "low"
