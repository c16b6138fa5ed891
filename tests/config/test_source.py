"""YAML becomes plain data without surprises, and every mistake has its place."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.config.mistakes import Mark
from proxy.config.source import MAX_FILE_BYTES, Document, read

ENVIRON = {"NAME": "value", "EMPTY": "", "PORT": "8080", "ODD": "a: [b] #c ${NAME}", "FLAG": "true"}


def document(text: str | bytes, environ: dict[str, str] | None = None) -> Document:
    raw = text.encode() if isinstance(text, str) else text
    return read(raw, "octet.yaml", ENVIRON if environ is None else environ)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((word, word) for word in ("on", "off", "yes", "no", "Yes", "NO", "y", "n", "tRue")),
        *((word, word) for word in ("1:30", "22:22", "190:20:30", "2026-05-01", "1_000", "0b11", "1e", "e3", "=", ".")),
        ("012", 12),
        ("-7", -7),
        ("+7", 7),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"012"', "012"),
        ('"a\\tb"', "a\tb"),
        ("|\n  one\n  two", "one\ntwo"),
        ("a:b", "a:b"),
        ("é 🦊", "é 🦊"),
    ],
)
def test_plain_words_are_no_surprise(written: str, meant: Any) -> None:
    """Scalars follow YAML 1.2: `on` is a word, `1:30` no number of seconds, `012` twelve, a date a text."""
    read_as = document(f"key: {written}").data["key"]
    assert (read_as, type(read_as)) == (meant, type(meant))


def test_keys_are_always_words() -> None:
    """A key is the text that stands there, also where YAML 1.1 saw a boolean or a number."""
    assert document("{on: 1, 8080: 2, null: 3, 1.0: 4}").data == {"on": 1, "8080": 2, "null": 3, "1.0": 4}


def test_every_value_has_a_place() -> None:
    """Lines and columns count from 1, in characters; a mapping's value stands where its key does."""
    marks = document("é: {ü: 1, b: [x, yy]}\nlist:\n  - k: v\n").marks
    assert marks[("é",)] == Mark(1, 1)
    assert marks[("é", "b")] == Mark(1, 11)
    assert marks[("é", "b", 1)] == Mark(1, 18)
    assert marks[("list", 0, "k")] == Mark(3, 5)


def test_a_bom_is_passed_over() -> None:
    """Editors that write a BOM are forgiven."""
    read_as = document(b"\xef\xbb\xbfkey: 1")
    assert (read_as.data, read_as.marks[("key",)]) == ({"key": 1}, Mark(1, 1))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_nothing_is_nothing(text: str) -> None:
    """An empty file holds nothing, and that is not for the reader to judge."""
    assert (document(text).data, document(text).mistakes) == (None, [])


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        pytest.param("a: 1\nb: 2\na: 3", "3:1", "line 1", id="duplicate key"),
        pytest.param("x:\n  - {a: 1, 'a': 2}", "2:12", "stands twice", id="duplicate key, quoted and nested"),
        pytest.param("a: &x 1\nb: *x", "2:4", "alias", id="alias"),
        pytest.param("a: &x {k: 1}\nb: {<<: *x}", "2:9", "alias", id="merge"),
        pytest.param("a: &x [*x]", "1:8", "alias", id="alias of itself"),
        pytest.param("a: !secret x", "1:1", "tags (!name)", id="tag"),
        pytest.param("a: !!python/object:os.system x", "1:1", "tag", id="python tag"),
        pytest.param("a: !!str 5", "1:1", "tag", id="core tag"),
        pytest.param("a: !!binary aGVsbG8=", "1:1", "tag", id="binary tag"),
        pytest.param("a:\n\tb: 1", "2:1", "tab", id="tab"),
        pytest.param("a:\n  b: 1\n\tc: 2", "3:1", "tab", id="tab below spaces"),
        pytest.param("a: [1, 2\nb: 3", "2:2", "not YAML", id="open list"),
        pytest.param("a: 'x\nb: 3", "2:5", "not YAML", id="open quote"),
        pytest.param("a: {b: 1}}", "1:10", "not YAML", id="one brace too many"),
        pytest.param("a: 1\n---\nb: 2", "2:1", "document", id="two documents"),
        pytest.param("? [a]\n: 1", "1:1", "keys", id="a list as key"),
        pytest.param("a: ${NOPE}", "1:1", "NOPE", id="missing variable"),
    ],
)
def test_what_is_refused_has_a_place(text: str, place: str, says: str) -> None:
    """One mistake, at its line and column, in one line of plain words."""
    (mistake,) = document(text).mistakes
    assert str(mistake).startswith(f"octet.yaml:{place}: ")
    assert says in mistake.message
    assert "\n" not in str(mistake)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(b"a: \xff", "UTF-8", id="latin"),
        pytest.param("a: 1".encode("utf-16"), "UTF-8", id="UTF-16"),
        pytest.param(b"a: 1\n" + b"#" * MAX_FILE_BYTES, "larger", id="more than 1 MiB"),
        pytest.param(b"a: x\x00y", "not YAML", id="NUL"),
    ],
)
def test_what_is_no_text_is_refused(text: bytes, says: str) -> None:
    """A file that cannot be read at all is one mistake, in one line."""
    read_as = document(text)
    (mistake,) = read_as.mistakes
    assert read_as.data is None
    assert says in mistake.message
    assert "\n" not in str(mistake)


def test_a_file_of_1_mib_is_read() -> None:
    """The limit itself is allowed."""
    text = b"a: 1\n"
    assert document(text + b"#" * (MAX_FILE_BYTES - len(text))).data == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 1000 + "]" * 1000, "{a: " * 1000 + "}" * 1000, "- " * 1000, "? " * 1000])
def test_deep_nesting_is_a_mistake(text: str) -> None:
    """A file nested a thousand deep is refused like any other."""
    assert len(document(text).mistakes) == 1


def test_very_deep_nesting_kills_nobody() -> None:
    """Nor does a far deeper one end the process (which is another one here, should it)."""
    program = "from proxy.config.source import read; print(len(read(b'- ' * 50_000, 'f', {}).mistakes))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${NAME}", "value"),
        ("a-${NAME}-${PORT}", "a-value-8080"),
        ("${NAME:-other}", "value"),
        ("${NOPE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("'${NOPE:-}'", ""),
        ("${NOPE:-}", None),
        ("'${EMPTY}'", ""),
        ("${PORT}", 8080),
        ("'${PORT}'", "8080"),
        ("${FLAG}", True),
        ("'${ODD}'", "a: [b] #c ${NAME}"),
        ("${ODD}", "a: [b] #c ${NAME}"),
        ("$${literal}", "${literal}"),
        ("$${NAME} ${NAME}", "${NAME} value"),
        ("'${NOPE:-http://h:1/x}'", "http://h:1/x"),
        ("$NAME", "$NAME"),
        ("cost$", "cost$"),
    ],
)
def test_variables(written: str, meant: Any) -> None:
    """`${VAR}` and its default are put in as text, once, and can be escaped; a value never becomes structure."""
    read_as = document(f"key: {written}")
    assert (read_as.data, read_as.mistakes) == ({"key": meant}, [])


def test_every_missing_variable_is_told() -> None:
    """Each is a mistake of its own, with the way to make it optional."""
    mistakes = document("a: ${ONE}\nb: [x, '${TWO}-${THREE}']", {}).mistakes
    assert [str(mistake).partition(" is not set")[0] for mistake in mistakes] == [
        "octet.yaml:1:1: a: the environment variable ONE",
        "octet.yaml:2:8: b[1]: the environment variable TWO",
        "octet.yaml:2:8: b[1]: the environment variable THREE",
    ]
    assert "${ONE:-" in mistakes[0].message


@pytest.mark.parametrize("held", ["secret", "secret\n", "secret\r\n"])
def test_what_another_file_holds(tmp_path: Path, held: str) -> None:
    """`${file:PATH}` is what stands there, without the end of its line; it is text, whatever it looks like."""
    file = tmp_path / "key"
    file.write_bytes(held.encode())
    read_as = document(f"key: 'a ${{file:{file}}} b'\nsame: ${{file:{file}}}")
    assert (read_as.data, read_as.mistakes) == ({"key": "a secret b", "same": "secret"}, [])
    assert list(read_as.files) == [str(file)]
    assert "secret" not in read_as.quote(("key",), "a secret b")


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (None, "the file that it names cannot be read: No such file or directory"),
        (b"\xff", "the file that it names cannot be read: it is not UTF-8"),
        (b" \n", "the file that it names is empty"),
        (b"x" * 65_537, "the file that it names is larger than 65536 bytes"),
    ],
)
def test_what_another_file_does_not_hold(tmp_path: Path, held: bytes | None, told: str) -> None:
    """A file that is not there, or holds no text, is a mistake at its place; it is watched all the same."""
    file = tmp_path / "key"
    if held is not None:
        file.write_bytes(held)
    read_as = document(f"a: 1\nkey: ${{file:{file}}}")
    assert list(map(str, read_as.mistakes)) == [f"octet.yaml:2:1: key: {told}"]
    assert list(read_as.files) == [str(file)]


@pytest.mark.parametrize(
    ("file", "told"),
    [("/dev/zero", "it is no file"), ("/", "it is no file"), ('"a\\0b"', "embedded null byte")],
)
def test_what_is_no_file(file: str, told: str) -> None:
    """A device, which may have no end, or a folder, is not read."""
    text = f"key: ${{file:{file}}}" if '"' not in file else 'key: "${file:a\\0b}"'
    (mistake,) = document(text).mistakes
    assert str(mistake).endswith(f"the file that it names cannot be read: {told}")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into it: to open it would take for ever."""
    os.mkfifo(tmp_path / "pipe")
    (mistake,) = document(f"key: ${{file:{tmp_path}/pipe}}").mistakes
    assert "it is no file" in str(mistake)


def test_variables_stand_in_values_only() -> None:
    """A key is never made from the environment."""
    assert document("${NAME}: 1").data == {"${NAME}": 1}


def test_all_mistakes_are_told_at_once() -> None:
    """One run finds them all, and what could be read is there for the checks that follow."""
    read_as = document("a: !x 1\nb: 2\nb: 3\nc: ${NOPE}\nd: [!y 1]")
    assert [mistake.path for mistake in read_as.mistakes] == [("a",), ("b",), ("c",), ("d", 0)]
    assert read_as.data["b"] == 2
