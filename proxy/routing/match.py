"""Whether a call is for a rule: every condition of its `match`, each with its key."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from proxy.call import Call
from proxy.config import Globs, Match, is_glob
from proxy.openai_format.estimate import Estimate
from proxy.openai_format.features import metadata_of, offers_tools, shows_images
from proxy.routing.choice import Passed

Holds = Callable[[Call, Estimate], bool]


class Condition(NamedTuple):
    """One thing that a call must be, and the key that asks for it."""

    key: str
    holds: Holds


class Matcher:
    """A rule's `match`, made ready."""

    def __init__(self, match: Match, route: str = "") -> None:
        self._globs = Globs(match.model)
        self._regex = re.compile(match.model_regex).fullmatch if match.model_regex is not None else None
        self._conditions = tuple(_conditions(match))
        self._tests = tuple((holds, Passed(route, key)) for key, holds in self._conditions)

    def model_key(self, model: str) -> str | None:
        """The key that keeps the rule from calls for this model; None: none does."""
        if not self._globs.fit(model):
            return "model"
        return "model_regex" if self._regex is not None and self._regex(model) is None else None

    @property
    def keys(self) -> frozenset[str]:
        """What it asks for, beside the model."""
        return frozenset(key for key, _ in self._conditions)

    def holds(self, keys: Collection[str], call: Call, tokens: Estimate) -> bool:
        """Whether those of its conditions that have these keys hold."""
        return all(holds(call, tokens) for key, holds in self._conditions if key in keys)

    def misfit(self, call: Call, tokens: Estimate) -> Passed | None:
        """What keeps the rule from a call whose model fits; None: nothing does."""
        for holds, passed in self._tests:
            if not holds(call, tokens):
                return passed
        return None


def _conditions(match: Match) -> Iterator[Condition]:
    """The cheapest first."""
    if (stream := match.stream) is not None:
        yield Condition("stream", lambda call, _: call.stream is stream)
    if match.caller:
        yield Condition("caller", _caller(match.caller))
    for name, glob in match.headers.items():
        yield Condition(f"headers.{name}", _header(name.lower(), glob))
    if (tools := match.tools) is not None:
        yield Condition("tools", lambda call, _: offers_tools(call) is tools)
    if (images := match.images) is not None:
        yield Condition("images", lambda call, _: shows_images(call) is images)
    if (least := match.min_prompt_tokens) is not None:
        yield Condition("min_prompt_tokens", lambda _, tokens: tokens.prompt >= least)
    if (most := match.max_prompt_tokens) is not None:
        yield Condition("max_prompt_tokens", lambda _, tokens: tokens.prompt <= most)
    for name, glob in match.metadata.items():
        yield Condition(f"metadata.{name}", _metadata(name, Globs([glob])))


def _caller(names: Sequence[str]) -> Holds:
    wanted = frozenset(names)
    return lambda call, _: call.caller.name in wanted


def _header(name: str, glob: str) -> Holds:
    if not is_glob(glob):
        return lambda call, _: call.headers.get(name) == glob
    globs = Globs([glob])

    def holds(call: Call, _: Estimate) -> bool:
        value = call.headers.get(name)
        return value is not None and globs.fit(value)

    return holds


def _metadata(name: str, globs: Globs) -> Holds:
    def holds(call: Call, _: Estimate) -> bool:
        value = metadata_of(call, name)
        return value is not None and globs.fit(value)

    return holds
