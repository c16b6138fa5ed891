"""Small texts from outside, of callers, of Redis and of operators: read as they are meant, or refused."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.admission.auth import Auth
from proxy.cache.control import control_of
from proxy.call import NEVER
from proxy.config import Config, Globs, Match, Server, parse_address, parse_redis_url
from proxy.config.globs import check_glob
from proxy.config.load import build
from proxy.config.source import Document
from proxy.edge.guard import Guard, host_name
from proxy.edge.render import names, request_id, sane
from proxy.errors import CallerError, InvalidRequest, Unauthenticated
from proxy.explain import explain
from proxy.forecast import forecast, read_served
from proxy.generations import Generations
from proxy.openai_format.encoding import decode_object
from proxy.pipeline import Snapshot
from proxy.providers import traits
from proxy.providers.seam import upstream_request_id
from proxy.resilience.deadline import deadline_of
from proxy.routing.match import Matcher
from proxy.telemetry import Telemetry
from tests.fuzz.effort import tries
from tests.fuzz.goldens import REQUESTS, call_of
from tests.fuzz.mutations import spoilt_json

# As headers arrive: bytes in UTF-8, with surrogates where they are none.
header_texts = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(max_size=30)
UNSAFE = "\r\n\x00\x7f\x1b\x85\u2028"


def is_safe(text: str) -> bool:
    """Whether it can stand in a header: no line of its own, and ASCII."""
    return text.isascii() and not set(text) & set(UNSAFE)


@tries(180)
@given(header_texts)
@example("a\r\nset-cookie: x")
@example("x" * 129)
def test_ids_and_names_make_no_header(text: str) -> None:
    """A caller's id, a model's name, names of fields and an upstream's id are fit for a header, or not taken."""
    given_id = request_id({"x-request-id": text})
    assert is_safe(given_id)
    assert 0 < len(given_id) <= 128
    assert is_safe(sane(text))
    assert is_safe(names([text, "x", text]))
    assert is_safe(upstream_request_id({"x-request-id": text}))


CALL = call_of(b'{"model":"m","messages":[{}]}')


@tries(180)
@given(text=header_texts | st.floats().map(str) | st.integers().map(str), stream=st.booleans())
def test_bounds_that_callers_set(text: str, stream: bool) -> None:
    """A time is one that can be meant, or is refused by name where it is ours to refuse."""
    for name in ("x-octet-timeout", "x-stainless-read-timeout", "x-stainless-timeout"):
        call = SimpleNamespace(headers={name: text}, stream=stream)
        try:
            deadline = deadline_of(cast("Any", call), None, lambda: 100.0, 0.0)
        except InvalidRequest:
            assert name == "x-octet-timeout"
            continue
        assert all(100 <= bound <= 100 + 86400 or bound == NEVER for bound in deadline[:2])
        assert 0 < deadline.gap <= 86400 or deadline.gap == NEVER
    control = control_of(f"max-age={text}")
    assert control.max_age >= 0


@tries(130)
@given(header_texts, header_texts)
def test_credentials_of_any_kind(first: str, second: str) -> None:
    """Nobody is let in by a text that is not his key."""
    server = {"callers": [{"name": "ann", "key": "right"}], "admin_token": "right-too", "allowed_hosts": ["a.example"]}
    config = configured({"server": server})
    auth = Auth(config.server)
    for sent in (first, f"Bearer {first}", f"bearer  {second}"):
        for headers in ({"authorization": sent}, {"authorization": sent, "x-octet-key": second}):
            try:
                caller = auth.identify(headers)
            except Unauthenticated:
                continue
            assert "right" in (first.strip(), second.strip()), caller
        assert not auth.is_operator({"authorization": sent}) or "right-too" in sent
    request = cast("Any", SimpleNamespace(headers={"host": first, "origin": second}))
    assert host_name(request) == host_name(request).lower()
    assert Guard(config.server).allows_origin(request) is False


def configured(tree: dict[str, Any]) -> Config:
    """A configuration of one upstream, and more."""
    return build(Document("words", {"upstreams": {"up": {"provider": "openai"}}, **tree}), traits())


hosts = st.text("abz.-_[]:0123456789fF%/@ é", max_size=16) | st.sampled_from(["h", "10.0.0.1", "[::1]", ""])


@tries(180)
@given(
    hosts | st.text(max_size=20),
    st.sampled_from([0, 1, 65535, 65536, 99999, 100_000]) | st.text("0123456789²٣-+ ", max_size=6),
)
def test_addresses(host: str, port: int | str) -> None:
    """An address that is taken is one that is shown as it was written, and read again."""
    for text in (host, f"{host}:{port}", f"unix:{host}"):
        try:
            address = parse_address(text)
        except ValueError:
            continue
        assert 0 <= address.port < 65536
        assert parse_address(str(address)) == address
    try:
        place = parse_redis_url(f"redis://{host}:{port}")
    except ValueError:
        return
    assert all(0 < number < 65536 for _, number in place.hosts)


sizes = st.builds(
    "{}{}{}".format, st.integers(-5, 10**20), st.sampled_from(["", " "]), st.sampled_from("KB MiB GB T".split())
)


@tries(80)
@given(sizes | st.text("0123456789KMGiB ²٣.e+_", max_size=12))
def test_sizes(text: str) -> None:
    """A size is a whole number of bytes above 0."""
    try:
        size = Server.model_validate({"max_body_bytes": text}).max_body_bytes
    except ValueError:
        return
    assert size > 0
    assert text[0] in "0123456789"


def fits(pattern: str, text: str) -> bool:
    """Whether a glob fits, read from its left to its right: `*`, `?`, `[...]`; written from what shells do."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits(pattern.lstrip("*"), text[place:]) for place in range(len(text) + 1))
    if not text:
        return False
    end = pattern.find("]", 3 if pattern.startswith("[!") else 2) if pattern[0] == "[" else 0
    if not end:
        return pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])
    inside = pattern[1:end].removeprefix("!")
    return _is_in(inside, text[0]) is (pattern[1] != "!") and fits(pattern[end + 1 :], text[1:])


def _is_in(inside: str, character: str) -> bool:
    place = 0
    while place < len(inside):
        is_range = inside[place + 1 : place + 2] == "-" and place + 2 < len(inside)
        last = inside[place + 2] if is_range else inside[place]
        if inside[place] <= character <= last:
            return True
        place += 3 if is_range else 1
    return False


@tries(250)
@given(st.text("ab*?[]!-", max_size=7), st.text("ab]-!", max_size=6))
def test_globs(pattern: str, text: str) -> None:
    """A glob that is taken fits what it says; one that cannot be read is refused."""
    try:
        check_glob(pattern)
    except ValueError:
        return
    assert Globs([pattern, "never"]).fit(text) is fits(pattern, text)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@tries(250)
@given(
    st.text("()[]*+?{}|\\^$ab1,<P=>!-:.#i\u2028", max_size=12)
    | st.sampled_from(["(" * 500, "(?i", "a{2,1}", "\\1", "x{99999999999}"])
)
def test_regular_expressions(pattern: str) -> None:
    """One that is taken can be used."""
    try:
        match = Match.model_validate({"model_regex": pattern})
    except ValueError:
        return
    assert Matcher(match).model_key("ab1") in (None, "model_regex")


@pytest.mark.parametrize(
    "glob", ["*a" * 40 + "!", "*" * 500 + "!", "*?" * 100 + "!", "[a-z]*" * 60 + "!", "*a*" * 60 + "!"]
)
def test_no_name_keeps_a_glob_busy(glob: str) -> None:
    """However the two are made, the answer is there before a test's time is over."""
    matcher = Matcher(Match(model=(glob,), headers={"x": glob}))
    for name in ("a" * 256, "ab" * 128, "a" * 255 + "\n"):
        assert matcher.model_key(name) == "model"
        assert Globs([glob, *[glob] * 50]).fit(name) is False


asked = spoilt_json(
    st.sampled_from(
        [
            '{"model":"gpt-4o","stream":true,"headers":{"x-team":"a","cache-control":"no-cache"},"caller":null,"body":{}}',
            '{"operation":"embeddings","model":"a","body":{"input":"x"}}',
            '{"operation":"completions","body":{"prompt":"x","model":"up/a"},"caller":"nobody"}',
            *REQUESTS["chat"][:40],
        ]
    )
)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """A configuration made ready, as a process has it."""
    route = {
        "targets": [{"upstream": "up"}],
        "cache": {"ttl_seconds": 60},
        "match": {"tools": False, "metadata": {"a": "*"}},
    }
    config = configured(
        {"routes": [route, {"targets": [{"upstream": "up"}], "strategy": "weighted", "sticky": "user"}]}
    )

    async def made() -> Snapshot:
        generations = Generations(config, Telemetry(lambda _: None))
        try:
            return generations.commit(await generations.prepare(config), 1)
        finally:
            await generations.close()

    return asyncio.run(made())


@tries(150)
@given(asked)
def test_what_may_be_asked_about_a_call(snapshot: Snapshot, asked: bytes) -> None:
    """An explanation, or what is wrong with the question."""
    try:
        question = decode_object(asked)
    except ValueError:
        return
    try:
        told = explain(snapshot, question)
    except CallerError:
        return
    json.dumps(told)


lines: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.dictionaries(
        st.sampled_from(["model_asked", "route", "upstream", "model", "caller", "stream"]),
        st.sampled_from(["up", "a", "up/a", "route-1", "direct", "", None, 1, True, [], {}, "\x00"]),
    ),
    max_size=6,
)


@tries(80)
@given(lines)
def test_access_lines_of_any_kind(lines: list[dict[str, Any]]) -> None:
    """Of each it can be told where it would go, or it cannot."""
    config = configured({"routes": [{"targets": [{"upstream": "up"}], "match": {"model": "a", "tools": True}}]})
    told = forecast(config, configured({}), read_served(lines))
    assert told.calls == len(list(read_served(lines)))
    assert 0 <= told.same <= told.calls
