"""Whatever stands in a configuration's file, it is a configuration, or a list of mistakes with their places."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config import Config, ConfigError, differences, json_schema, parse
from proxy.config.load import build
from proxy.config.source import Document, read
from proxy.providers import traits
from proxy.routing import Router
from tests.fuzz.effort import tries
from tests.fuzz.mutations import PLAIN, Members, Token, spoilt_bytes, trees, write

SECRET = "s3cret-of-the-environment"
ENVIRON = {"KEY": SECRET, "OPENAI_API_KEY": SECRET, "SIMULATOR_URL": "http://127.0.0.1:8082"}
FILES = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
TEXTS = [file.read_bytes() for file in FILES]
SCHEMA = Draft202012Validator(json_schema(traits()))
MINI = b"""\
server: {callers: [{name: a, key: '${KEY}', models: 'gpt-*'}], admin_token: '${KEY}'}
upstreams:
  up: {provider: openai, api_key: '${KEY}', headers: {x-a: '${KEY}'}, labels: {tier: gold}}
  there: {provider: rayserve, base_url: 'http://h:1', settings: {mode: custom, request: {p: '{prompt}'}}}
routes:
  - match: {model: ['gpt-[a-c]*', x], headers: {x-team: 'a?'}, caller: a, model_regex: 'g(p|t)+'}
    targets: [{upstream: up, set: {user: x}}, {upstream: there}]
    require: {tier: [g*]}
    fallback: [{upstream: there}]
    retry: {attempts: 2}
  - {name: last, targets: [{upstream: up}], sticky: 'header:x', strategy: weighted, total_seconds: 5}
redis: {url: 'redis://:${KEY}@h:1/0'}
tracing: {endpoint: 'http://h:4318/v1/traces', headers: {a: '${KEY}'}}
cache: {memory: {max_bytes: 1MiB}, redis: {url: 'redis+cluster://a:1,b'}}
"""


def tree_of(text: bytes) -> str:
    """A file as JSON, which is YAML too, its variables as they are written."""
    return write(_members(read(text, "octet.yaml", {name: f"${{{name}}}" for name in ENVIRON}).data))


def _members(value: Any) -> Any:
    if isinstance(value, dict):
        return Members((name, _members(each)) for name, each in value.items())
    return [_members(each) for each in value] if isinstance(value, list) else value


SEEDS = [tree_of(text) for text in (MINI, MINI, *TEXTS)]
odd = (
    *PLAIN,
    *(Token(word) for word in ("NaN", "0x1F", "1:30", "~", "yes", "'a", "*x", "!!str x", "${KEY}", "${NO}")),
    *"http://[x http://h:0/v1 http://h http://u:p@h http://h?q=1 //h http://é/v1 redis:// redis://:${KEY}@h".split(),
    *"redis+sentinel://h/m unix: unix:/x [::1]:1 h:0 :1 1KB * ? [ [! []] [b-a] ( (a+)+$ (?P<a>x)(?P<a>y)".split(),
    *"\\ a{99999} {prompt} {{x {%for {{cycler.__init__}} ${KEY} ${KEY:-x} header:x /etc/passwd / gpt-* up".split(),
    *"there tier weighted normalise exact caller".split(),
    "1 GiB", "9" * 5000, "9" * 30 + "GiB", "(" * 300 + ")" * 300, "x{0,65536}" * 3, "http://" + "a" * 300, "a\x00b",
)  # fmt: skip
words = st.sampled_from(
    [
        *"[]{},:-?&*!|>'\"%@`#~\t\n\r \x00\x85\u2028\ufeff", "\n  ", "\n- ", "a: ", "- ", "? ", ": ", "&x ", "*x",
        "<<: *x", "!!python/object/apply:os.system ", "!!binary ", "%YAML 1.1\n", "---\n", "...\n", "|\n  ", ">-\n ",
        "${KEY}", "${", "${NO}", "${KEY:-x}", "$${", "upstreams: ", "{a: {provider: openai}}", "routes: ", "server: ",
        "a", "1e999", "0x1F", "1:30", "null", "yes", "'a", '"\\x41', '"\\u12', "é", "🦊", "\udcff", "9" * 30, "=", "<<",
        "a" * 2000,
    ]
)  # fmt: skip
texts = st.lists(words, max_size=25).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
spoilt = trees(st.sampled_from(SEEDS), odd, most=2).map(lambda tree: write(tree).encode("utf-8", "surrogatepass"))


def loaded(text: bytes) -> Config | None:
    """The configuration; None where all that is wrong is told as people are to read it."""
    try:
        return parse(text, "octet.yaml", traits(), ENVIRON)
    except ConfigError as error:
        mistakes = error.mistakes
    lines = text.decode("utf-8-sig", "replace").count("\n") + text.count(b"\r") + text.count(b"\xc2\x85") + 2
    lines += text.count("\u2028".encode()) + text.count("\u2029".encode())
    assert mistakes
    for mistake in mistakes:
        told = str(mistake)
        assert told.startswith("octet.yaml:")
        assert mistake.message.strip()
        assert SECRET not in told
        assert mistake.mark is not None or not mistake.path
        if mistake.mark is not None:
            assert 1 <= mistake.mark.line <= lines
            assert mistake.mark.column >= 1
    return None


def assert_usable(config: Config) -> None:
    """What was accepted can be routed by and compared, and no difference tells a secret."""
    Router(config, Random(1).random)
    other = parse(TEXTS[0], "octet.yaml", traits(), ENVIRON)
    names = [*config.upstreams, *(str(route.name) for route in config.routes), *(c.name for c in config.server.callers)]
    for change in (*differences(config, other), *differences(other, config)):
        assert SECRET not in str(change) or SECRET in "".join(names)
    assert differences(config, config) == []


@tries(300)
@given(texts | st.binary(max_size=60))
@example(b"a: &x [*x]")
@example(b"a: &x {b: 1}\nc: {<<: *x}")
@example(b"&a [&b [&c [1, *a], *b], *c]")
def test_any_text(text: bytes) -> None:
    """Tags, anchors, merges, directives and odd bytes are mistakes, or do no harm."""
    config = loaded(text)
    if config is not None:
        assert_usable(config)


@tries(120)
@given(spoilt_bytes(st.sampled_from([MINI, MINI, *TEXTS])))
def test_a_file_with_other_bytes(text: bytes) -> None:
    """A slip of the editor is told, or harmless."""
    config = loaded(text)
    if config is not None:
        assert_usable(config)


@tries(170)
@given(spoilt)
def test_a_file_with_other_values(text: bytes) -> None:
    """A value of any type at any place is told, or can be used."""
    config = loaded(text)
    if config is not None:
        assert_usable(config)


@tries(90)
@given(trees(st.sampled_from(SEEDS), odd, most=1))
def test_what_editors_mark_is_refused(tree: Any) -> None:
    """Where the JSON Schema finds fault, so does the loader: no editor marks what works."""
    assert_agreed(write(tree).encode("utf-8", "surrogatepass"))


def assert_agreed(text: bytes) -> None:
    """What loads is not marked."""
    read_as = read(text, "octet.yaml", ENVIRON)
    try:
        build(Document("octet.yaml", read_as.data, mistakes=list(read_as.mistakes)), traits())
    except ConfigError:
        return
    assert [(error.json_path, error.message[:200]) for error in SCHEMA.iter_errors(read_as.data)] == []


def test_a_collector_without_its_bracket() -> None:
    """It is a mistake with a place, like any other address that is none."""
    assert loaded(b"upstreams: {a: {provider: openai}}\ntracing: {endpoint: 'http://[x'}") is None


OUTSIDE = (
    "server: {callers: [{name: '${KEY}', key: x}]}\nroutes: [{match: {caller: b}, targets: [{upstream: a}]}]",
    "routes: [{name: '${KEY}', targets: [{upstream: a}], fallback: [{route: b}]}]",
    "routes: [{name: '${KEY}', targets: [{upstream: a}], fallback: [{route: '${KEY}'}]}]",
    "routes: [{match: {model: '[${KEY}'}, targets: [{upstream: a}]}]",
)


@pytest.mark.parametrize("text", OUTSIDE)
def test_no_hint_shows_the_environment(text: str) -> None:
    """A key in the place of a name, or of a glob, stands in no message, be it of another mistake."""
    assert loaded(f"upstreams: {{a: {{provider: openai}}}}\n{text}".encode()) is None


@pytest.mark.parametrize("place", ["answer", "stream"])
def test_one_path_of_a_text(place: str) -> None:
    """One path need not be a list, also for editors."""
    settings = f"{{mode: custom, request: {{p: '{{prompt}}'}}, {place}: {{text: result}}}}"
    assert_agreed(f"upstreams: {{a: {{provider: rayserve, base_url: 'http://h', settings: {settings}}}}}".encode())


def test_a_file_of_many_mistakes() -> None:
    """Ten thousand mistakes are told in the time of one test."""
    text = b"upstreams: {up: {provider: openai}}\n" + b"".join(b"key%d: 1\n" % number for number in range(10_000))
    assert loaded(text) is None
    long = b"upstreams: {up: {provider: openai, %s: 1}}" % (b"provid" * 100_000)
    assert loaded(long) is None
