"""What each generation of models accepts, read out of its name; models without a version accept everything."""

import re
from dataclasses import dataclass

_NAMES = (
    re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d)(?:-(?P<minor>\d)(?!\d))?"),
    re.compile(r"claude-(?P<major>\d)(?:-(?P<minor>\d))?-(?P<family>[a-z]+)"),
)
_ALWAYS_THINKING = ("fable", "mythos")


@dataclass(frozen=True, slots=True)
class Model:
    """A model's family and version.

    Source: Anthropic documentation, "Extended thinking", "Adaptive thinking", "Effort", "Preserved thinking".
    """

    family: str
    version: tuple[int, int]

    @property
    def knows_sampling(self) -> bool:
        """Whether temperature, top_p and top_k exist."""
        return self.version < (4, 7)

    @property
    def knows_prefill(self) -> bool:
        """Whether it continues a final assistant message."""
        return self.version < (4, 6)

    @property
    def knows_formats(self) -> bool:
        """Whether it writes by a JSON schema."""
        return self.version >= (4, 5) or (self.family, self.version) == ("opus", (4, 1))

    @property
    def knows_forced_tools(self) -> bool:
        """Whether it can be made to use a tool."""
        if self.family in _ALWAYS_THINKING:
            return self.version < (5, 1)
        return (self.family, self.version) not in {("opus", (5, 5)), ("sonnet", (5, 5))}

    @property
    def thinks_by_default(self) -> bool:
        """Whether it thinks when it is not told."""
        if self.family == "haiku":
            return self.version >= (5, 5)
        return self.version >= (5, 0)

    @property
    def hides_thoughts(self) -> bool:
        """Whether thoughts are left out of the answer unless they are asked for."""
        return self.version >= (4, 7)

    @property
    def binds_thoughts(self) -> bool:
        """Whether a thinking block is accepted only behind the conversation that it was thought in."""
        if self.family in _ALWAYS_THINKING:
            return self.version >= (5, 1)
        return self.version >= (5, 5)

    @property
    def thinking_types(self) -> tuple[str, ...]:
        """The values of `thinking.type` that it takes."""
        kinds: tuple[str, ...] = ("enabled",) if (3, 7) <= self.version < (4, 7) else ()
        kinds += ("adaptive",) if self.version >= (4, 6) else ()
        if (self.family, self.version) == ("sonnet", (5, 5)):
            return (*kinds, "between_tools")
        cannot_stop = self.family in _ALWAYS_THINKING or (self.family, self.version) == ("opus", (5, 5))
        return kinds if cannot_stop else (*kinds, "disabled")

    @property
    def efforts(self) -> tuple[str, ...]:
        """The values of `output_config.effort` that it takes."""
        if self.version < (4, 6) and (self.family, self.version) != ("opus", (4, 5)):
            return ()
        levels: tuple[str, ...] = ("low", "medium", "high")
        levels += ("xhigh",) if self.version >= (4, 7) else ()
        return (*levels, "max") if self.version >= (4, 6) else levels


def model_named(name: str) -> Model | None:
    """Read a name like claude-opus-4-8, claude-haiku-4-5-20251001 or claude-3-7-sonnet-20250219."""
    for pattern in _NAMES:
        match = pattern.match(name)
        if match is not None:
            return Model(match["family"], (int(match["major"]), int(match["minor"] or 0)))
    return None
