"""Answers that only look well: each ends as a failure, and what failed is told."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import Broken, CutShort, InvalidRequest, ProxyError, RequestRefused, UnsupportedParameter
from proxy.openai_format.chunks import merge_usage
from proxy.openai_format.schemas import inline_refs
from proxy.providers import providers, traits
from proxy.providers.anthropic import families
from proxy.providers.relay import open_relay, read_completion
from proxy.providers.seam import Target
from tests.providers.test_matrix import asked, sent, target

SSE = "text/event-stream"


def failure(column: str, body: bytes, kind: str = SSE, **fields: Any) -> ProxyError | None:
    """What a stream, or a JSON answer, is found to be."""
    call = asked(column, stream=kind != "application/json", **fields)
    there = target(column, call)
    provider = providers()[there.upstream.provider]
    try:
        if not call.stream:
            read_completion(provider, call, there, {"content-type": kind}, body)
            return None
        relay = open_relay(provider, call, there, {"content-type": kind})
    except ProxyError as error:
        return error
    relay.feed(body)
    if relay.failure is None:
        relay.finish()
    return relay.failure


def events(*values: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return b"".join(head + b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


STARTED = events({"type": "message_start", "message": {"id": "m"}})
SPOKEN = events(
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
)
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "body", [STARTED + events({"type": "message_stop"}), STARTED + SPOKEN + events({"type": "message_stop"})]
)
def test_a_stop_without_its_reason(body: bytes) -> None:
    """Anthropic says how a message ended before it stops: without that it was cut."""
    assert isinstance(failure("anthropic", body), CutShort)


@pytest.mark.parametrize("column", ["anthropic", "vllm", "bentoml custom"])
def test_an_event_that_is_named_an_error(column: str) -> None:
    """Whatever its data, it breaks the stream."""
    start = STARTED + SPOKEN if column == "anthropic" else events({"text": "Hi"} if "custom" in column else CHUNK)
    found = failure(column, start + events({"oops": 1}, name="error") + b"data: [DONE]\n\n")
    assert isinstance(found, ProxyError)


@pytest.mark.parametrize("column", ["vllm", "huggingface", "tgi", "openai"])
def test_an_error_by_its_object(column: str) -> None:
    """vLLM's older errors keep their status and text, as events and as 200 answers."""
    error = {"object": "error", "message": "bad max_tokens", "type": "BadRequestError", "code": 400}
    for found in (failure(column, events(error)), failure(column, json.dumps(error).encode(), "application/json")):
        assert isinstance(found, RequestRefused)
        assert found.message == "bad max_tokens"


WHOLE: list[tuple[str, Json]] = [
    ("openai", {"choices": [{}]}),
    ("vllm", {"choices": [{"message": None, "finish_reason": "stop"}]}),
    ("vllm", {"choices": [{"text": "Hi", "finish_reason": "stop"}]}),
    ("anthropic", {"content": ["x"], "stop_reason": "end_turn"}),
    ("anthropic", {"content": [{"type": "text", "text": "x"}]}),
    ("ollama", {"done": True}),
    ("ollama", {"message": {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}, "done": True}),
    ("bentoml custom", {"error": "boom"}),
]


@pytest.mark.parametrize(("column", "answer"), WHOLE)
def test_an_answer_without_its_message(column: str, answer: Json) -> None:
    """No empty success is made of it."""
    assert isinstance(failure(column, json.dumps(answer).encode(), "application/json"), ProxyError)


@pytest.mark.parametrize(("kind", "body"), [("text/plain", b'{"error": "boom"}'), ("text/plain", b""), ("", b"")])
def test_a_deployment_that_says_nothing_or_an_error(kind: str, body: bytes) -> None:
    """An error as plain text, and an empty body, are no answers."""
    call = asked("rayserve custom")
    there = target("rayserve custom", call)
    with pytest.raises(ProxyError):
        read_completion(providers()["rayserve"], call, there, {"content-type": kind}, body)
    assert isinstance(failure("rayserve custom", b"", "text/plain"), Broken)


def test_arguments_that_are_a_text_already() -> None:
    """They are not encoded twice."""
    made = {"message": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}, "done": True}
    call = asked("ollama")
    body, _ = read_completion(
        providers()["ollama"],
        call,
        target("ollama", call),
        {"content-type": "application/json"},
        json.dumps(made).encode(),
    )
    assert json.loads(body)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_a_whole_answer_to_a_stream_is_bounded() -> None:
    """A JSON answer without end is given up at the size of a frame."""
    call = asked("anthropic", stream=True)
    there = target("anthropic", call)
    relay = open_relay(providers()["anthropic"], call, there, {"content-type": "application/json"})
    for _ in range(9):
        relay.feed(b" " * 1024 * 1024)
    assert isinstance(relay.failure, Broken)


def test_a_key_that_stands_twice_in_the_answer() -> None:
    """On the exact wire with another name: a failure of the upstream's, not ours."""
    config = build(Document("exact", {"upstreams": {"up": {"provider": "openai"}}}), traits())
    body = (
        b'{"id":"a","id":"b","model":"other","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}'
    )
    with pytest.raises(Broken):
        read_completion(providers()["openai"], asked("openai"), Target("up", config.upstreams["up"], "other"), {}, body)


@pytest.mark.parametrize("details", [[1], "x", {"reasoning_tokens": "many"}, None])
def test_details_that_are_none(details: Any) -> None:
    """They are left out where answers are added up."""
    count = {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": details}
    assert merge_usage([count, count]) == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}


def test_a_model_that_loads_for_ever() -> None:
    """A number of seconds that nobody waits is not believed."""
    body = b'{"error":"loading","estimated_time":1' + b"0" * 400 + b"}"
    call = asked("huggingface")
    assert providers()["huggingface"].parse_error(target("huggingface", call), 503, {}, body).retry_after is None


REFUSED: list[tuple[str, Json, str]] = [
    ("vllm", {"chat_template_kwargs": {"chat_template": "{{ evil }}"}}, "chat_template_kwargs"),
    ("tgi", {"functions": [{"name": "f"}], "tools": [{"type": "function", "function": {"name": "g"}}]}, "functions"),
    (
        "vllm",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ]
        },
        "messages[0].content[0].image_url.url",
    ),
    (
        "anthropic",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "thinking_blocks": [{"type": "document"}]},
            ]
        },
        "messages[1].thinking_blocks[0]",
    ),
    (
        "vllm",
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].input_audio",
    ),
    ("ollama", {"response_format": {"type": []}}, "response_format"),
]


@pytest.mark.parametrize(("column", "fields", "param"), REFUSED)
def test_requests_that_reach_too_far(column: str, fields: Json, param: str) -> None:
    """They are refused by name, and nothing is sent."""
    with pytest.raises((InvalidRequest, UnsupportedParameter)) as caught:
        sent(column, **fields)
    assert caught.value.param == param


CALLED: list[Json] = [
    {"role": "user", "content": "a", "tool_calls": [{"id": "z"}], "tool_call_id": "z"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "t", "content": "r", "name": "f"},
]


def test_what_a_prompt_cannot_tell_is_named() -> None:
    """Tool calls of the history, names, and members of messages that are not theirs."""
    misplaced = {"messages[0].tool_calls", "messages[0].tool_call_id"}
    for column in ("tgi generate", "bentoml custom"):
        assert set(sent(column, messages=CALLED).dropped) == misplaced | {"messages[1].tool_calls", "messages[2].name"}


def test_very_many_fields_and_ids() -> None:
    """Twenty thousand unknown fields are all named, two thousand ids that collide are all told apart."""
    many = {f"field{number}": 1 for number in range(20_000)}
    assert len(sent("vllm", **many).dropped) == 20_000
    calls = [{"id": "." * (number + 1), "type": "function", "function": {"name": "f"}} for number in range(60)]
    calls += [{"id": f"{'.' * 60}{character}", "type": "function", "function": {"name": "f"}} for character in "!?;:,"]
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": "r"} for call in calls]
    body = json.loads(
        sent("anthropic", messages=[CALLED[0], {"role": "assistant", "tool_calls": calls}, *answers]).body
    )
    ids = [block["id"] for block in body["messages"][1]["content"]]
    assert len(set(ids)) == len(ids) == 65


def test_a_reference_that_cannot_be_followed() -> None:
    """A schema keeps its definitions when a reference to them stands where none is looked for."""
    schema = {"type": "object", "not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "string"}}}
    assert inline_refs(schema) == schema


@pytest.mark.parametrize(("model", "number"), [("claude-3.7-sonnet", (3, 7)), ("claude-3.5-haiku", (3, 5))])
def test_versions_with_a_dot(model: str, number: tuple[int, int]) -> None:
    """Some gateways spell the older names so."""
    assert families.version(model) == number
    assert families.name(model) in ("sonnet", "haiku")


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonlines", "application/stream+json"])
def test_a_json_call_that_is_answered_line_by_line(kind: str) -> None:
    """An endpoint that always streams is folded, under any name of its framing."""
    call = asked("rayserve custom")
    body = b'{"text": "Hel"}\n{"text": "lo"}\n'
    whole, _ = read_completion(
        providers()["rayserve"], call, target("rayserve custom", call), {"content-type": kind}, body
    )
    assert json.loads(whole)["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    "answer",
    [[{"summary_text": "Hi"}], [{"translation_text": "Hi"}], [[{"generated_text": "Hi"}]], ["Hi"], {"result": "Hi"}],
)
def test_what_pipelines_return(answer: Any) -> None:
    """The shapes of well-known pipelines need no path."""
    call = asked("rayserve custom")
    headers = {"content-type": "application/json"}
    whole, _ = read_completion(
        providers()["rayserve"], call, target("rayserve custom", call), headers, json.dumps(answer).encode()
    )
    assert json.loads(whole)["choices"][0]["message"]["content"] == "Hi"


def test_parts_that_are_all_text_are_one_text() -> None:
    """Endpoints that take messages mostly take no parts."""
    call = asked("bentoml custom", messages=[{"role": "user", "content": [{"type": "text", "text": "solo"}]}])
    settings = {"mode": "custom", "request": {"m": "{messages}"}}
    upstream = {"provider": "bentoml", "base_url": "http://upstream.example", "settings": settings}
    config = build(Document("parts", {"upstreams": {"up": upstream}}), traits())
    request = providers()["bentoml"].build_request(call, Target("up", config.upstreams["up"], "m"))
    assert json.loads(request.body) == {"m": [{"role": "user", "content": "solo"}]}


def test_rays_wrapping_is_taken_off() -> None:
    """Its text is told, and no traceback with paths and addresses."""
    inner = "Internal exception: x, original exception: \x1b[36mray::Replica (ip=192.0.2.2)"
    text = f"Message: too long (Request ID: 5), {inner}"
    body = json.dumps({"error": {"message": text, "type": "ValueError", "code": 500}}).encode()
    there = target("rayserve", asked("rayserve"))
    assert providers()["rayserve"].parse_error(there, 500, {}, body).message == "too long"


def call_of(body: Json) -> Call:
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="x", received_at=1.0)


@pytest.mark.parametrize("choice", [{"type": "allowed_tools", "function": None}, {"function": "x"}, "auto", 5])
def test_amending_odd_choices(choice: Any) -> None:
    """A refusal of tool_choice amends only a choice that forces."""
    call = call_of({"model": "claude-x", "messages": [{"role": "user"}], "tools": [{}], "tool_choice": choice})
    error = RequestRefused("tool_choice is not supported")
    assert providers()["anthropic"].amend(call, target("anthropic", asked("anthropic")), error) is None
