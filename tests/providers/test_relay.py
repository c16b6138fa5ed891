"""What the upstream sends becomes what the caller may have, in the way that the caller asked."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import providers, traits
from proxy.providers.relay import open_relay, read_completion
from proxy.providers.seam import Target

VLLM = providers()["vllm"]
UPSTREAM: Json = {"provider": "vllm", "base_url": "http://upstream.example", "wire": "normalise"}
TARGET = Target("up", build(Document("octet.yaml", {"upstreams": {"up": UPSTREAM}}), traits()).upstreams["up"], "m")
FUNCTION = {"name": "f", "arguments": "{}"}
CALLS = [{"index": 0, "id": "call_1", "type": "function", "function": FUNCTION}]


def call(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="1", received_at=1.0)


def read(asked: Call) -> Json:
    """The choice of a whole answer with a tool call."""
    body = {"choices": [{"message": {"tool_calls": CALLS}, "finish_reason": "tool_calls"}]}
    out, _ = read_completion(VLLM, asked, TARGET, {"content-type": "application/json"}, json.dumps(body).encode())
    choice: Json = json.loads(out)["choices"][0]
    return choice


def streamed(asked: Call) -> list[Json]:
    """The choices of a streamed answer with a tool call."""
    relay = open_relay(VLLM, asked, TARGET, {"content-type": "text/event-stream"})
    body = {"choices": [{"index": 0, "delta": {"tool_calls": CALLS}, "finish_reason": "tool_calls"}]}
    out = relay.feed(f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n".encode()) + relay.finish()
    events = [event.removeprefix(b"data: ") for event in out.split(b"\n\n") if event]
    return [choice for event in events if event != b"[DONE]" for choice in json.loads(event)["choices"]]


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({}, "tool_calls", "tool_calls"),
        ({"functions": None}, "tool_calls", "tool_calls"),
        ({"functions": [{"name": "f"}]}, "function_call", "function_call"),
    ],
    ids=["absent", "null", "functions"],
)
def test_who_asks_with_functions_reads_function_calls(fields: Json, name: str, reason: str) -> None:
    """The deprecated pair is answered in its own way, whole and as a stream; null is the same as absent."""
    whole = read(call(**fields))
    assert (name in whole["message"], whole["finish_reason"]) == (True, reason)
    choices = streamed(call(stream=True, **fields))
    assert any(name in choice["delta"] for choice in choices)
    assert choices[-1]["finish_reason"] == reason
