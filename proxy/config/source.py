"""A YAML file as plain data, with the place of every value.

Scalars follow YAML 1.2's core rules, not 1.1's: `on`, `1:30` and `012` are no surprises. Duplicate keys,
aliases and tags are refused.

Source: YAML 1.2.2 §10.3.2 (core schema).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from proxy.config.mistakes import Mark, Mistake, Path

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 50

MAX_SECRET_BYTES = 64 * 1024
SHORTEST_SECRET = 4  # what is shorter would be found in every second word

_VARIABLE = re.compile(r"\$(?:\$\{|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\{file:([^}]+)\}|(\{))")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass
class Document:
    """A file, read: `data` is plain, `marks` tells where each path of it stands.

    `files` are others that it names, whose contents count too.
    """

    source: str
    data: Any = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    from_outside: set[Path] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)  # what came from there, as far as it may be secret
    files: dict[str, None] = field(default_factory=dict)

    def quote(self, path: Path, value: str) -> str:
        """The value for a message, unless it came from the environment or another file, where secrets are."""
        return "the value from outside" if path in self.from_outside else f'"{value[:60]}"'

    def mistake(self, path: Path, message: str) -> None:
        """Note a mistake at the nearest place that the file has for this path; no secret stands in it."""
        for value in sorted(self.hidden, key=len, reverse=True):
            message = message.replace(value, "(from outside)")
        near = path
        while near and near not in self.marks:
            near = near[:-1]
        self.mistakes.append(Mistake(self.source, self.marks.get(near), path, message))


def read(text: bytes, source: str, environ: Mapping[str, str]) -> Document:
    """Parse; what is wrong stands in `mistakes`, and `data` holds what could be read."""
    document = Document(source)
    if len(text) > MAX_FILE_BYTES:
        document.mistake((), f"the file is larger than {MAX_FILE_BYTES} bytes")
        return document
    try:
        root, tagged = _compose(text.decode("utf-8-sig"), document)
    except UnicodeDecodeError as error:
        document.mistake((), f"the file is not UTF-8 (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        document.mistakes.append(Mistake(source, _mark(error.problem_mark), (), f"not YAML: {_problem(error, text)}"))
    except yaml.YAMLError as error:
        document.mistake((), f"not YAML: {' '.join(str(error).split())}")
    else:
        if root is not None:
            document.data = _Builder(document, environ, tagged).build(root, ())
    return document


def _problem(error: yaml.MarkedYAMLError, text: bytes) -> str:
    mark, problem = error.problem_mark, error.problem or "cannot be read"
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else b""
    if mark and b"\t" in line[: mark.column + 1]:
        return "a tab where spaces belong; indent with spaces"
    return "one file holds one document; remove what follows" if "another document" in problem else problem


def _compose(text: str, document: Document) -> tuple[yaml.Node | None, set[Mark | None]]:
    """The tree, and where in it tags are written; no tree where one would be unsafe to build."""
    depth, tagged = 0, set[Mark | None]()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        message = ""
        if isinstance(event, yaml.AliasEvent):
            message = "aliases (*name) are not supported; write the value out"
        elif depth > MAX_DEPTH:  # libyaml's composer recurses
            message = f"nested more than {MAX_DEPTH} deep"
        if message:
            document.mistakes.append(Mistake(document.source, _mark(event.start_mark), (), message))
            return None, tagged
        if getattr(event, "tag", None) is not None:
            tagged.add(_mark(event.start_mark))
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    return root, tagged


def _mark(mark: Any) -> Mark | None:
    return Mark(mark.line + 1, mark.column + 1) if mark else None


class _Builder:
    """Walks the nodes once, noting places and mistakes."""

    def __init__(self, document: Document, environ: Mapping[str, str], tagged: set[Mark | None]) -> None:
        self._document = document
        self._environ = environ
        self._tagged = tagged

    def build(self, node: yaml.Node, path: Path) -> Any:
        if mark := _mark(node.start_mark):
            self._document.marks.setdefault(path, mark)
        if mark in self._tagged:
            self._document.mistake(
                path, "tags (!name) are not supported; write the plain value, in quotes where it begins with !"
            )
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._document.mistake(path, "keys must be plain words")
                continue
            if ":" in key and _is_nothing(value_node) and not key_node.style:  # the rest may be a secret
                word = key.partition(":")[0]
                message = f'a space is missing after the colon of "{word[:60]}"'
                self._document.mistakes.append(
                    Mistake(self._document.source, _mark(key_node.start_mark), (*path, word), message)
                )
                continue
            here = (*path, key)
            place = _mark(key_node.start_mark)
            if key in result:
                message = f'the key "{key}" stands twice; the first is on line {self._document.marks[here].line}'
                self._document.mistakes.append(Mistake(self._document.source, place, here, message))
                continue
            if place:
                self._document.marks[here] = place
            result[key] = self.build(value_node, here)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = self._substitute(node.value, path)
        return text if node.style else resolve(text)  # no style: a plain scalar

    def _substitute(self, text: str, path: Path) -> str:
        if "$" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            name, default, file, malformed = match.groups()
            if malformed:
                self._document.mistake(
                    path, "write ${NAME}, ${NAME:-default} or ${file:PATH}; $${ stands for a plain ${"
                )
            if file is None and name is None:
                return "${"
            self._document.from_outside.add(path)
            if file is not None:
                return self._hide(self._held_by(file, path))
            found = self._environ.get(name)
            if default is not None:
                return self._hide(found) if found else default
            if found is None:
                self._document.mistake(
                    path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                )
                return "unset"
            return self._hide(found)

        return _VARIABLE.sub(value, text)

    def _hide(self, value: str) -> str:
        if len(value) >= SHORTEST_SECRET:
            self._document.hidden.add(value)
        return value

    def _held_by(self, file: str, path: Path) -> str:
        """What another file holds, without the end of its last line."""
        self._document.files[file] = None
        try:
            if FilePath(file).exists() and not FilePath(file).is_file():
                raise ValueError("it is no file")  # a pipe would be waited for
            with FilePath(file).open("rb") as opened:
                text = opened.read(MAX_SECRET_BYTES + 1).decode()
        except UnicodeDecodeError:
            self._document.mistake(path, "the file that it names cannot be read: it is not UTF-8")
            return "unset"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._document.mistake(path, f"the file that it names cannot be read: {reason}")
            return "unset"
        if not text.strip() or len(text) > MAX_SECRET_BYTES:
            wrong = "is empty" if not text.strip() else f"is larger than {MAX_SECRET_BYTES} bytes"
            self._document.mistake(path, f"the file that it names {wrong}")
            return "unset"
        return text.rstrip("\r\n")


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.value and not node.style


def resolve(text: str) -> Any:
    """A plain scalar's value."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def mapping(value: Any) -> dict[str, Any]:
    """A value that should be a mapping; empty when it is none, which is told elsewhere."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The same for a list."""
    return value if isinstance(value, list) else []
