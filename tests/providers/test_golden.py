"""Every provider against its golden cases: what we send, and what the caller gets for what comes back."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller
from proxy.config import load_environment
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import ProxyError, UpstreamError
from proxy.openai_format.errors import error_object
from proxy.providers import providers, traits
from proxy.providers.relay import Relay, open_relay, read_completion
from proxy.providers.seam import Target
from tests.together import Test, together

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/case.json"))
RECEIVED_AT = 1795000000.0


class Case:
    """One folder of golden files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = json.loads(folder.joinpath("case.json").read_text())
        self.provider = providers()[folder.parent.name]
        replies = list(folder.glob("upstream_reply.*"))
        self.reply = replies[0].read_bytes() if replies else None
        self.suffix = replies[0].suffix if replies else ""

    def __repr__(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    def call(self, **overrides: Any) -> Call:
        body = self.folder.joinpath("request.json").read_bytes()
        operation = self.about.get("operation", "chat")
        return parse(
            body,
            operation=operation,
            caller=Caller(),
            headers={},
            call_id="golden",
            received_at=RECEIVED_AT,
            **overrides,
        )

    def target(self, call: Call) -> Target:
        name = self.folder.parent.name
        upstream = {"provider": name, "base_url": "http://upstream.example", **self.about["upstream"]}
        config = build(Document("case.json", {"upstreams": {name: upstream}}), traits())
        return Target(name, config.upstreams[name], self.about.get("target_model", call.model))

    def json(self, name: str) -> Any:
        return json.loads(self.folder.joinpath(name).read_bytes())

    def has(self, name: str) -> bool:
        return self.folder.joinpath(name).exists()

    @property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.about.get("reply_headers", {})
        return headers


def each(*, when: str) -> Callable[[Test], Test]:
    """Run a test with every case that fits, those of a provider together."""
    chosen: dict[str, list[Case]] = {}
    for case in map(Case, CASES):
        if eval(when, {"case": case}):  # noqa: S307
            chosen.setdefault(case.folder.parent.name, []).append(case)
    return together("case", chosen)


def assert_error(case: Case, error: ProxyError) -> None:
    wanted = case.json("error.json")
    told = error_object(error, "golden")["error"]
    assert type(error).__name__ == wanted["kind"]
    assert error.status == wanted["status"]
    assert {key: told[key] for key in ("type", "param", "code")} == {
        key: wanted["error"][key] for key in ("type", "param", "code")
    }
    assert told["message"]
    if wanted["error"]["message"] is not None:
        assert error.message == wanted["error"]["message"]
    if "retry_after" in wanted:
        assert isinstance(error, UpstreamError)
        assert error.retry_after == wanted["retry_after"]


def test_the_golden_cases_are_found() -> None:
    """A provider without cases would pass in silence."""
    assert {path.parent.name for path in CASES} == set(providers())
    assert load_environment(traits(), {}) is None


# The vectors of reference/upstreams.md §15 that are no data of a dialect: 5 is in test_framing.py, 36 in
# edge/test_hangups.py, 45 in test_conversation.py.
VECTORS = set(range(1, 47)) - {5, 36, 45}


def test_every_vector_has_its_case() -> None:
    """No test vector is without a golden case."""
    covered = {vector for path in CASES for vector in json.loads(path.joinpath("case.json").read_text())["vectors"]}
    assert not VECTORS - covered


@each(when="case.has('upstream_request.json')")
def test_what_is_sent(case: Case) -> None:
    """The upstream gets its own dialect's request, and what is lost has a name."""
    call = case.call()
    request = case.provider.build_request(call, case.target(call))
    wanted = case.folder.joinpath("upstream_request.json").read_bytes()
    if case.target(call).upstream.wire == "exact":
        assert request.body == wanted
    else:
        assert json.loads(request.body) == json.loads(wanted)
    assert sorted(request.dropped) == sorted(case.about["dropped"])
    assert request.copies == case.about.get("copies", 1)
    assert request.url == case.about.get("url", request.url)
    assert case.about.get("headers", {}).items() <= dict(request.headers).items()


@each(when="not case.has('upstream_request.json')")
def test_what_is_refused(case: Case) -> None:
    """What a target cannot carry is refused by name, and nothing is sent."""
    with pytest.raises(ProxyError) as caught:
        call = case.call()
        case.provider.build_request(call, case.target(call))
    assert_error(case, caught.value)


@each(when="case.about.get('reply_status', 200) != 200 and case.reply is not None")
def test_what_an_error_means(case: Case) -> None:
    """An error answer is understood: kind, status, message, and how long to wait."""
    assert case.reply is not None
    status, headers = case.about["reply_status"], case.about["reply_headers"]
    error = case.provider.parse_error(case.target(case.call()), status, headers, case.reply)
    assert_error(case, error)


@each(when="case.about.get('amend', False)")
def test_what_is_amended(case: Case) -> None:
    """A model family's refusal is cured by a changed call, and what is lost has a name."""
    assert case.reply is not None
    call, target = case.call(), case.target(case.call())
    error = case.provider.parse_error(target, case.about["reply_status"], case.headers, case.reply)
    amended = case.provider.amend(call, target, error)
    assert amended is not None
    request = case.provider.build_request(amended, target)
    assert json.loads(request.body) == case.json("amended_request.json")
    assert sorted({*request.dropped, *amended.amended}) == sorted(case.about["amended_dropped"])


@each(when="case.has('completion.json') or case.has('caller.json')")
def test_what_a_json_caller_gets(case: Case) -> None:
    """A whole answer becomes OpenAI's completion, or passes byte for byte."""
    assert case.reply is not None
    call = case.call()
    body, facts = read_completion(case.provider, call, case.target(call), case.headers, case.reply)
    if case.has("caller.json"):
        assert body == case.folder.joinpath("caller.json").read_bytes()
    else:
        assert json.loads(body) == case.json("completion.json")
    assert facts.usage == (json.loads(body).get("usage") or None)


@each(
    when="case.has('error.json') and case.reply is not None and not case.has('chunks.jsonl') and not "
    "case.has('caller.sse') and case.about.get('reply_status') == 200"
)
def test_what_is_no_answer(case: Case) -> None:
    """A 200 that holds no answer is an error, never a completion."""
    assert case.reply is not None
    call = case.call()
    with pytest.raises(UpstreamError) as caught:
        if call.stream:
            relay = open_relay(case.provider, call, case.target(call), case.headers)
            run(relay, [case.reply])
            raise relay.failure or AssertionError("no failure")
        read_completion(case.provider, call, case.target(call), case.headers, case.reply)
    assert_error(case, caught.value)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The stream whole, byte by byte, and cut at random (seeded) places."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    chance = random.Random(len(data))
    for _ in range(5):
        places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 12)))
        yield [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def run(relay: Relay, pieces: list[bytes]) -> bytes:
    out = b""
    for piece in pieces:
        out += relay.feed(piece)
        if relay.failure:
            return out
    return out + relay.finish()


@each(when="case.has('chunks.jsonl') or case.has('caller.sse')")
def test_what_a_streaming_caller_gets(case: Case) -> None:
    """A stream gives the same chunks however it is cut, and ends as the upstream ended it."""
    assert case.reply is not None
    call = case.call()
    if case.has("chunks.jsonl"):
        call = asking_for_usage(call)
    for pieces in cuts(case.reply):
        relay = open_relay(case.provider, call, case.target(call), case.headers)
        out = run(relay, pieces)
        if case.has("error.json"):
            assert relay.failure is not None
            assert_error(case, relay.failure)
        else:
            assert relay.failure is None
            assert relay.facts.finished
        if case.has("caller.sse"):
            assert out == case.folder.joinpath("caller.sse").read_bytes()
        else:
            assert_chunks(case, out)


def asking_for_usage(call: Call) -> Call:
    return Call(**{name: getattr(call, name) for name in Call.__struct_fields__} | {"wants_usage": True})


def assert_chunks(case: Case, out: bytes) -> None:
    events = [event.removeprefix(b"data: ") for event in out.split(b"\n\n")[:-1]]
    if not case.has("error.json"):
        assert events.pop() == b"[DONE]"
    got = [json.loads(event) for event in events]
    for chunk in got:
        if chunk.get("usage", 0) is None:
            del chunk["usage"]
    wanted = [json.loads(line) for line in case.folder.joinpath("chunks.jsonl").read_text().splitlines()]
    if case.about.get("merge_text"):
        got, wanted = text_joined(got), text_joined(wanted)
    assert got == wanted


def text_joined(chunks: list[Any]) -> list[Any]:
    """Texts that follow one another as one: where text is not framed, pieces are as the network cut them."""
    joined: list[Any] = []
    for chunk in chunks:
        deltas = [each["choices"][0]["delta"] for each in (*joined[-1:], chunk) if each["choices"]]
        if len(deltas) == 2 and all(delta.keys() == {"content"} for delta in deltas):
            deltas[0]["content"] += deltas[1]["content"]
        else:
            joined.append(chunk)
    return joined
