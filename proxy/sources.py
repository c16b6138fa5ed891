"""Where configurations come from."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from proxy.config import Config, parse, read_file
from proxy.providers import traits


class Source(Protocol):
    """Where a configuration comes from."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def read(self) -> bytes | None:
        """Its text; None where it has none that could change. Raises ConfigError when it cannot be read."""
        ...

    def parse(self, text: bytes) -> Config:
        """The configuration; raises ConfigError with every mistake."""
        ...


class FileSource:
    """A file.

    Args:
        finish: what is done to every configuration that is read, such as flags that win over it.
    """

    def __init__(self, path: str, finish: Callable[[Config], Config] = lambda config: config) -> None:
        self.name = path
        self._finish = finish
        self._once: bytes | None = None  # the text of what can be read only once: a pipe

    def read(self) -> bytes:
        if self._once is not None:
            return self._once
        text = read_file(self.name)
        if not Path(self.name).is_file():
            self._once = text
        return text

    def parse(self, text: bytes) -> Config:
        return self._finish(parse(text, self.name, traits(), os.environ))


class FixedSource:
    """Something that does not change: the environment, or the demo."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> None:
        """There is nothing to read."""

    def parse(self, text: bytes) -> Config:  # noqa: ARG002
        raise RuntimeError("there is nothing to read")
