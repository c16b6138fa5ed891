"""What a broken or hostile upstream may send, to every dialect: an error or an answer, never a hang or a lie."""

import json
from typing import Any

import pytest

from proxy.call import Call, Json
from proxy.errors import ProxyError, UpstreamError
from proxy.providers import providers
from proxy.providers.relay import open_relay, read_completion
from tests.providers.test_matrix import COLUMNS, asked, target

SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"
BIG = "x" * 10_000_000


def chat_chunk(delta: Json | None = None, finish: Any = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1795000000, "choices": [choice], **more}


class Shape:
    """How a dialect streams: its events for a text, and those that end it."""

    def __init__(self, column: str) -> None:
        self.kind = NDJSON if column == "ollama" else SSE
        self.column = column

    def spell(self, *events: Any) -> bytes:
        if self.kind == NDJSON:
            return b"".join(json.dumps(event).encode() + b"\n" for event in events)
        named = self.column == "anthropic"
        return b"".join(
            (f"event: {event['type']}\n".encode() if named and isinstance(event, dict) else b"")
            + b"data: "
            + (event if isinstance(event, bytes) else json.dumps(event).encode())
            + b"\n\n"
            for event in events
        )

    def text(self, text: str) -> bytes:
        if self.column == "anthropic":
            start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}}
            block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            return self.spell(start, block, delta, {"type": "content_block_stop", "index": 0})
        if self.column == "ollama":
            return self.spell({"model": "m", "message": {"role": "assistant", "content": text}, "done": False})
        if self.column == "tgi generate":
            return self.spell({"index": 1, "token": {"id": 1, "text": text, "logprob": 0, "special": False}})
        if "custom" in self.column:
            return self.spell({"text": text})
        return self.spell(chat_chunk({"role": "assistant", "content": text}))

    def end(self, usage: Any = None) -> bytes:
        if self.column == "anthropic":
            counts = {"output_tokens": usage} if usage is not None else None
            delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": counts}
            return self.spell(delta, {"type": "message_stop"})
        if self.column == "ollama":
            counts = {} if usage is None else {"eval_count": usage, "prompt_eval_count": usage}
            return self.spell({"model": "m", "message": {}, "done": True, "done_reason": "stop", **counts})
        if self.column == "tgi generate":
            details = {"finish_reason": "eos_token", "generated_tokens": usage, "input_length": usage}
            token = {"id": 2, "text": "</s>", "special": True}
            return self.spell({"token": token, "generated_text": "all", "details": details})
        if "custom" in self.column:
            return self.spell(b"[DONE]")
        counts = {} if usage is None else {"usage": {"prompt_tokens": usage, "completion_tokens": usage}}
        return self.spell(chat_chunk(finish="stop", **counts), b"[DONE]")


def relayed(column: str, body: bytes, kind: str | None = None, *, step: int = 0) -> tuple[bytes, UpstreamError | None]:
    """What the caller gets of a stream, and what broke it."""
    call = asked(column, stream=True)
    there = target(column, call)
    relay = open_relay(providers()[there.upstream.provider], call, there, {"content-type": kind or Shape(column).kind})
    out = b""
    pieces = [body[place : place + step] for place in range(0, len(body), step)] if step else [body]
    for piece in pieces:
        out += relay.feed(piece)
        if relay.failure is not None or relay.facts.finished:
            break
    if relay.failure is None:
        out += relay.finish()
    return out, relay.failure


def text_in(out: bytes) -> str:
    events = [json.loads(line[6:]) for line in out.split(b"\n") if line.startswith(b"data: {")]
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in event["choices"] if event["choices"]
    )


each_column = pytest.mark.parametrize("column", COLUMNS)


@each_column
def test_the_shapes_are_right(column: str) -> None:
    """What the other tests break is an answer when nothing breaks it."""
    shape = Shape(column)
    out, failure = relayed(column, shape.text("Hé ☀") + shape.end(), step=1)
    assert failure is None
    assert text_in(out) == "Hé ☀"
    assert out.endswith(b"data: [DONE]\n\n")


@each_column
def test_a_second_end_and_what_follows_it(column: str) -> None:
    """Terminal events that come twice, and events after the end, change nothing."""
    shape = Shape(column)
    out, failure = relayed(column, shape.text("Hi") + shape.end() + shape.end() + shape.text("more") + shape.end())
    assert failure is None
    assert text_in(out) == "Hi"
    assert out.count(b"[DONE]") == 1


@each_column
@pytest.mark.parametrize("usage", [-5, "many", 10**30, 1.5, [], {}, True], ids=str)
def test_absurd_usage(column: str, usage: Any) -> None:
    """Counts that are none end as an error or are left out; they never break the sidecar, nor reach the books."""
    shape = Shape(column)
    body = shape.text("Hi") + shape.end(usage)
    call = asked(column, stream=True)
    there = target(column, call)
    relay = open_relay(providers()[there.upstream.provider], call, there, {"content-type": shape.kind})
    relay.feed(body)
    if relay.failure is None:
        relay.finish()
    if relay.failure is None and relay.facts.usage is not None:
        assert all(
            isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**63
            for name, count in relay.facts.usage.items()
            if name.endswith("_tokens")
        )


@each_column
def test_an_event_of_ten_megabytes(column: str) -> None:
    """It is above `max_frame_bytes`: a clear error, not memory without bound."""
    shape = Shape(column)
    out, failure = relayed(column, shape.text("Hi") + shape.text(BIG) + shape.end(), step=65536)
    assert failure is not None
    assert "bytes" in failure.message
    assert b"[DONE]" not in out
    assert len(out) < 10_000


@each_column
def test_half_an_event_at_the_end(column: str) -> None:
    """A body that ends inside an event was cut."""
    shape = Shape(column)
    out, failure = relayed(column, shape.text("Hi") + shape.text("there")[:-12])
    assert b"[DONE]" not in out or "custom" in column  # a shape of one's own has no end of its own
    assert failure is not None or "custom" in column


TOOLS = {"tools": [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]}


@pytest.mark.parametrize("arguments", ['{"a": ', "not json", "[1]", "", None, {"a": 1}, 7], ids=str)
def test_arguments_that_are_no_json(arguments: Any) -> None:
    """A tool call's arguments are the model's words: they pass as a text, whatever they are."""
    call = asked("bentoml", **TOOLS)
    there = target("bentoml", call)
    made = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    body = json.dumps({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    whole, _ = read_completion(providers()["bentoml"], call, there, {"content-type": JSON}, body.encode())
    (got,) = json.loads(whole)["choices"][0]["message"]["tool_calls"]
    assert isinstance(got["function"]["arguments"], str)


ODD_MESSAGES: dict[str, Any] = {
    "choices is an object": {"choices": {"message": {"content": "x"}}},
    "choices is empty": {"choices": []},
    "a choice is null": {"choices": [None]},
    "no message": {"choices": [{"index": 0, "finish_reason": "stop"}]},
    "the message is a text": {"choices": [{"index": 0, "message": "x", "finish_reason": "stop"}]},
    "the content is a number": {"choices": [{"index": 0, "message": {"content": 7}, "finish_reason": "stop"}]},
    "tool calls are an object": {"choices": [{"message": {"tool_calls": {"a": 1}}, "finish_reason": "stop"}]},
    "a tool call is a text": {"choices": [{"message": {"tool_calls": ["a"]}, "finish_reason": "stop"}]},
    "the reason is a number": {"choices": [{"message": {"content": "x"}, "finish_reason": 7}]},
    "usage is a list": {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": [1]},
    "usage is a text": {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": "1"},
    "content blocks are texts": {"type": "message", "content": ["x"], "stop_reason": "end_turn"},
    "content is a text": {"type": "message", "content": "x"},
    "a message is a list": {"message": ["x"], "done": True, "done_reason": "stop"},
    "generated text is a number": {"generated_text": 7, "details": []},
}


@each_column
@pytest.mark.parametrize("odd", ODD_MESSAGES)
def test_odd_shapes(column: str, odd: str) -> None:
    """Members of the wrong type end as an error of the upstream's, or as a completion of the right types."""
    body = json.dumps(ODD_MESSAGES[odd]).encode()
    for stream in (False, True):
        call = asked(column, stream=stream)
        told = completed(column, call, body)
        if told is not None and not stream:
            message = told["choices"][0]["message"]
            assert isinstance(message["content"], str | None)
            assert isinstance(told["choices"][0]["finish_reason"], str)


def completed(column: str, call: Call, body: bytes) -> Json | None:
    """The completion, or None when the answer was found to be none."""
    there = target(column, call)
    provider = providers()[there.upstream.provider]
    try:
        if not call.stream:
            whole: Json = json.loads(read_completion(provider, call, there, {"content-type": JSON}, body)[0])
            return whole
        relay = open_relay(provider, call, there, {"content-type": JSON})
        relay.feed(body)
        relay.finish()
    except ProxyError:
        return None
    return {} if relay.failure is None else None
