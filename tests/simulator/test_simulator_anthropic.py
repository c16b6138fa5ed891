"""The anthropic dialect judges and answers as the Messages API does."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
ASKED = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"}
TEXT = {"type": "text", "text": "and now?"}


async def events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    blocks = (await response.read()).decode().split("\n\n")
    assert blocks.pop() == ""
    seen = []
    for block in blocks:
        name, data = block.split("\n")
        seen.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {seen[-1]['type']}"
    return seen


def messages(*content: Any) -> dict[str, Any]:
    """Alternate user and assistant messages of the given contents."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[index % 2], "content": each} for index, each in enumerate(content)]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"temperature": None}, "temperature: Input should be a valid number"),
        ({"temperature": 1.1}, "temperature: range: 0..1"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'messages: Unexpected role "system".'),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [USER | {"name": "x"}]}, "messages.0.name: Extra inputs are not permitted"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 'messages: first message must use the "user" role'),
        ({"messages": [USER, USER]}, "messages: roles must alternate"),
        (messages(""), "messages.0: all messages must have non-empty content"),
        (messages("   "), "messages: text content blocks must contain non-whitespace text"),
        (messages([{"type": "text", "text": ""}]), "messages: text content blocks must be non-empty"),
        (messages("a", "b ", "c", "d "), "messages: final assistant content cannot end with trailing whitespace"),
        (messages([{"type": "tool_use"}]), "messages.0.content.0: `tool_use` blocks are not allowed"),
        (messages([{"type": "text", "text": "x", "odd": 1}]), "messages.0.content.0.text.odd: Extra inputs"),
        (messages([RESULT]), "messages.0.content.0: unexpected `tool_use_id` found"),
        ({"messages": [USER, ASKED]}, "messages.1: `tool_use` ids were found without `tool_result`"),
        ({"messages": [USER, ASKED, USER]}, "messages.1: `tool_use` ids were found without `tool_result`"),
        (
            {"messages": [USER, ASKED, {"role": "user", "content": [TEXT, RESULT]}]},
            "messages.1: `tool_use` ids were found without `tool_result`",
        ),
        (
            {"messages": [USER, ASKED, {"role": "user", "content": [RESULT, TEXT, RESULT]}]},
            "messages.2.content.2: unexpected `tool_use_id`",
        ),
        (
            messages("a", [{"type": "tool_use", "id": "a.b", "name": "c", "input": {}}]),
            "messages.1.content.0.tool_use.id: String should match pattern",
        ),
        (
            messages("a", [{"type": "tool_use", "id": "a", "name": "c", "input": "{}"}]),
            "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
        ),
        ({"system": 5}, "system: Input should be a valid string or a valid list"),
        ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks must be non-empty"),
        ({"stop_sequences": ["ok", " \n"]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"stop_sequences": "ok"}, "stop_sequences: Input should be a valid list"),
        ({"tools": [{"name": "clock"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [TOOL | {"input_schema": {}}]}, "tools.0.custom.input_schema.type: Field required"),
        ({"tools": [TOOL | {"input_schema": {"type": "array"}}]}, "tools.0.custom.input_schema.type: Input should be"),
        ({"tools": [TOOL | {"parameters": {}}]}, "tools.0.custom.parameters: Extra inputs are not permitted"),
        (
            {"tools": [TOOL | {"input_schema": {"type": "object", "properties": {"a": 5}}}]},
            "tools.0.custom.input_schema: JSON schema is invalid: schema.properties.a",
        ),
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
        ({"tool_choice": {"type": "auto"}}, "tool_choice may only be specified while providing tools"),
        ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice: Input should be a valid dictionary"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type: Input should be 'auto'"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.tool.name: Field required"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "Tool 'x' not found in provided tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
            "tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted",
        ),
        ({"metadata": {"name": "x"}}, "metadata.name: Extra inputs are not permitted"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens: Input should be greater"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "`max_tokens` must be greater than"),
        ({"model": "claude-opus-4-8", "temperature": 1}, "`temperature` is deprecated for this model."),
        (
            {"model": "claude-opus-4-8", **messages("a", "b")},
            "This model does not support assistant message prefill.",
        ),
        (
            {"model": "claude-opus-5-5", "tools": [TOOL], "tool_choice": {"type": "any"}},
            'tool_choice: type "tool" and "any" are not supported for this model',
        ),
    ],
)
async def test_a_wrong_request_is_refused_in_its_words(post: Post, fields: dict[str, Any], message: str) -> None:
    """Status 400, the Anthropic error object, and the place that is wrong."""
    response = await post("anthropic", fields)
    body = await response.json()
    assert response.status == 400
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["error"]["message"].startswith(message)
    assert body["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
async def test_required_fields_are_required(post: Post, name: str) -> None:
    """Each is named when it is missing."""
    response = await post("anthropic", without=(name,))
    assert (await response.json())["error"]["message"] == f"{name}: Field required"


async def test_the_version_header_is_required(post: Post) -> None:
    """Without it, or with an unheard-of version, the request is refused."""
    response = await post("anthropic", without=("anthropic-version",))
    assert (await response.json())["error"]["message"] == "anthropic-version: header is required"
    response = await post("anthropic", headers={"anthropic-version": "2020-01-01"})
    assert response.status == 400


async def test_the_newer_version_knows_no_sampling(post: Post) -> None:
    """From 2026-10-21 on any temperature is refused, whatever the model."""
    response = await post("anthropic", {"temperature": 1}, headers={"anthropic-version": "2026-10-21"})
    assert (await response.json())["error"]["message"] == "`temperature` is deprecated for this model."


async def test_both_credentials_together_are_refused(post: Post) -> None:
    """Either header is fine, both are a 401 even where no key is checked."""
    both = {"x-api-key": "a", "authorization": "Bearer a"}
    response = await post("anthropic", headers=both)
    assert response.status == 401
    assert (await response.json())["error"]["type"] == "authentication_error"
    for name, value in both.items():
        assert (await post("anthropic", headers={name: value})).status == 200


async def test_an_older_model_continues_a_prefill(post: Post) -> None:
    """A final assistant message is accepted before 4.6."""
    assert (await post("anthropic", messages("a", "b"))).status == 200


async def test_a_message_has_the_real_shape(post: Post) -> None:
    """Blocks, stop reason, usage with cache fields, and the headers."""
    response = await post("anthropic", {"system": "Be brief."})
    body = await response.json()
    assert list(body) == ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"]
    assert body["id"].startswith("msg_")
    assert [block["type"] for block in body["content"]] == ["text"]
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    assert body["usage"] == {
        "input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(body["content"][0]["text"].split()),
        "service_tier": "standard",
    }
    assert "anthropic-ratelimit-requests-remaining" in response.headers


async def test_events_come_in_the_documented_order(post: Post, simulator: Simulator) -> None:
    """Start, ping, each block framed by its own start and stop, then reason and usage, then the end."""
    plan: list[dict[str, Any]] = [{"name": "clock", "arguments": {"zone": "UTC"}}, {"name": "none"}]
    simulator.script("anthropic", Behaviour(text="Looking up.", tool_calls=plan))
    seen = await events(await post("anthropic", {"stream": True}))
    assert [event["type"] for event in seen] == [
        "message_start",
        "ping",
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"],
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_delta"],
        "content_block_stop",
        *["content_block_start", "content_block_delta", "content_block_stop"],
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in seen if event["type"] == "content_block_start"] == [0, 1, 2]
    fragments = [event["delta"]["partial_json"] for event in seen if event.get("delta", {}).get("partial_json")]
    assert json.loads("".join(fragments)) == {"zone": "UTC"}
    assert seen[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}


async def test_the_stream_says_what_the_message_says(post: Post) -> None:
    """The same text and the same final usage, which starts at one output token."""
    whole = await (await post("anthropic")).json()
    seen = await events(await post("anthropic", {"stream": True}))
    text = "".join(event["delta"]["text"] for event in seen if event["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert seen[0]["message"]["usage"]["output_tokens"] == 1
    assert seen[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert seen[-2]["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


async def test_stop_sequences_and_limits_give_their_reasons(post: Post) -> None:
    """The matched sequence is named, not echoed; the limit says max_tokens."""
    body = await (await post("anthropic", {"stop_sequences": ["X"]}, behaviour='text="a X b"')).json()
    assert (body["content"][0]["text"], body["stop_reason"], body["stop_sequence"]) == ("a ", "stop_sequence", "X")
    body = await (await post("anthropic", {"max_tokens": 1})).json()
    assert (body["stop_reason"], body["usage"]["output_tokens"]) == ("max_tokens", 1)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "clock"}])
async def test_a_forced_tool_is_used(post: Post, choice: dict[str, str]) -> None:
    """The block holds the input as an object, and the reason is tool_use."""
    body = await (await post("anthropic", {"tools": [TOOL], "tool_choice": choice})).json()
    (block,) = body["content"]
    assert (block["type"], block["name"], block["input"], body["stop_reason"]) == ("tool_use", "clock", {}, "tool_use")


async def test_parallel_use_can_be_disabled(post: Post) -> None:
    """Two tools are mentioned, one is used."""
    fields = messages("clock and ruler") | {"tools": [TOOL, TOOL | {"name": "ruler"}]}
    assert len((await (await post("anthropic", fields)).json())["content"]) == 2
    fields["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    assert len((await (await post("anthropic", fields)).json())["content"]) == 1


async def test_a_tool_result_is_answered_with_a_quotation(post: Post) -> None:
    """Also when text follows the results."""
    for content in ([RESULT], [RESULT, TEXT]):
        fields = {"messages": [USER, ASKED, {"role": "user", "content": content}], "tools": [TOOL]}
        body = await (await post("anthropic", fields)).json()
        assert "noon" in body["content"][0]["text"]
