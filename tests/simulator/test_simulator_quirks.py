"""Each quirk does what it says, where a dialect knows it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
STREAM = {"stream": True}
CALL = 'tool_calls=[{"name": "clock", "arguments": {"zone": "Europe"}}]'


async def events(post: Post, quirks: str, more: str = "", dialect: str = "openai") -> list[str]:
    response = await post(dialect, STREAM, behaviour=f"quirks={quirks}{more}")
    assert response.status == 200
    return (await response.text()).split("\n\n")


async def chunks(post: Post, quirks: str, more: str = "") -> list[dict[str, Any]]:
    found = await events(post, quirks, more)
    return [json.loads(event.removeprefix("data: ")) for event in found[:-2]]


async def test_errors_have_other_shapes(post: Post) -> None:
    """A number as code, a bare text, an array."""
    for quirk, expected in (("integer_code", 503), ("array_error", None)):
        body = await (await post("openai", behaviour=f"status=503; quirks={quirk}")).json()
        (body,) = body if quirk == "array_error" else (body,)
        assert body["error"]["code"] == expected
    body = await (await post("openai", behaviour="status=503; quirks=bare_error")).json()
    assert isinstance(body["error"], str)
    body = await (await post("openai", {"n": 0}, behaviour="quirks=integer_code")).json()
    assert body["error"]["code"] == 400


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "vllm"])
async def test_a_failure_may_hide_in_a_success(post: Post, dialect: str) -> None:
    """An object on a 200, or the only event of a stream."""
    response = await post(dialect, behaviour="status=503; quirks=error_in_200")
    assert (response.status, "error" in await response.json()) == (200, True)
    response = await post(dialect, STREAM, behaviour="status=503; quirks=error_in_200")
    assert (response.status, response.content_type) == (200, "text/event-stream")
    assert '"error"' in (await response.text()).split("\n\n")[0]


async def test_fragments_of_calls_are_odd(post: Post) -> None:
    """Without index, or with everything repeated, or as one object."""
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(post, "no_index", f"; {CALL}")]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert len(calls) > 2
    assert not any("index" in call for call in calls)
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(post, "repeat_id,repeat_role", f"; {CALL}")]
    assert all(delta["role"] == "assistant" for delta in deltas)
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert {call["function"]["name"] for call in calls} == {"clock"}
    assert len({call["id"] for call in calls}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(post, "arguments_object", f"; {CALL}")]
    (call,) = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert call["function"]["arguments"] == {"zone": "Europe"}


async def test_reasons_are_odd(post: Post) -> None:
    """Stop beside tool calls, or empty until the end."""
    assert (await chunks(post, "stop_for_tools", f"; {CALL}"))[-1]["choices"][0]["finish_reason"] == "stop"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in await chunks(post, "empty_finish")]
    assert (set(reasons[:-1]), reasons[-1]) == ({""}, "stop")


async def test_fields_are_null_that_others_leave_out(post: Post) -> None:
    """In deltas and in messages."""
    seen = await chunks(post, "explicit_nulls")
    assert all({"role", "content", "tool_calls"} <= set(chunk["choices"][0]["delta"]) for chunk in seen)
    body = await (await post("openai", behaviour="quirks=explicit_nulls")).json()
    assert body["choices"][0]["message"]["tool_calls"] is None


async def test_thoughts_have_their_old_name(post: Post) -> None:
    """Even of a server that has none otherwise."""
    seen = await chunks(post, "legacy_reasoning", "; reasoning=Hm.")
    assert seen[1]["choices"][0]["delta"] == {"reasoning_content": "Hm."}


async def test_usage_comes_where_it_was_not_asked_for(post: Post) -> None:
    """In every chunk, growing, or on the finish."""
    seen = await chunks(post, "usage_every_chunk", "; text=one two")
    assert [chunk["usage"]["completion_tokens"] for chunk in seen] == [0, 1, 2, 2]
    seen = await chunks(post, "usage_on_finish")
    assert [place for place, chunk in enumerate(seen) if chunk.get("usage")] == [len(seen) - 1]


async def test_azure_begins_with_a_filter(post: Post) -> None:
    """No choices, empty names."""
    first = (await chunks(post, "filter_preamble"))[0]
    assert (first["choices"], first["id"], first["model"], first["object"]) == ([], "", "", "")


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "ollama", "vllm", "huggingface", "rayserve"])
async def test_one_event_may_be_big(post: Post, dialect: str) -> None:
    """Larger than what naive readers hold."""
    text = await (await post(dialect, STREAM, behaviour="quirks=big_event; text=a")).text()
    assert max(len(line) for line in text.split("\n")) > 65_536


async def test_endings_are_odd(post: Post) -> None:
    """The terminal event is missing, doubled, not the last, or all closing events are missing."""
    usual = await events(post, "bom")
    assert (await events(post, "no_done"))[-2].startswith("data: {")
    assert (await events(post, "duplicate_done"))[-3:] == ["data: [DONE]", "data: [DONE]", ""]
    after = await events(post, "after_done")
    assert (after[-3], after[-2]) == ("data: [DONE]", usual[-4])
    assert len(await events(post, "silent_end")) == len(usual) - 2
    assert (await events(post, "no_final_blank"))[-1] == "data: [DONE]"


@pytest.mark.parametrize(("dialect", "end"), [("anthropic", '"message_stop"}'), ("ollama", '"done":true')])
async def test_other_dialects_have_odd_endings_too(post: Post, dialect: str, end: str) -> None:
    """Whatever their terminal event is."""
    for quirks, count in (("no_done", 0), ("duplicate_done", 2), ("silent_end", 0), ("no_final_blank", 1)):
        text = await (await post(dialect, STREAM, behaviour=f"quirks={quirks}")).text()
        assert text.count(end) == count
        assert text.endswith("\n") != (quirks == "no_final_blank")


async def test_spelling_is_odd(post: Post) -> None:
    """A byte order mark first; fields that mean nothing, and events without data."""
    response = await post("openai", STREAM, behaviour="quirks=bom")
    body = await response.read()
    assert body.startswith(b"\xef\xbb\xbfdata: ")
    assert body.count(b"\xef\xbb\xbf") == 1
    lines = (await events(post, "retry_lines"))[:2]
    assert lines[0] == "retry: 3000"
    assert lines[1].startswith("id: 7\nevent: message\ndata: {")
