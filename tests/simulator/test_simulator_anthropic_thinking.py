"""The anthropic dialect thinks as its models do, and knows its own thoughts again."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
MANUAL = {"model": "claude-sonnet-4-5", "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
ADAPTIVE = {"model": "claude-opus-4-8", "thinking": {"type": "adaptive"}}
SHOWN = {"thinking": {"type": "adaptive", "display": "summarized"}}


async def events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    blocks = (await response.text()).split("\n\n")[:-1]
    return [json.loads(block.split("\n")[1].removeprefix("data: ")) for block in blocks]


async def message_of(response: aiohttp.ClientResponse) -> str:
    assert response.status == 400
    return str((await response.json())["error"]["message"])


def effort(level: str) -> dict[str, Any]:
    return {"output_config": {"effort": level}}


def thinking(kind: str, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": kind, **more}}


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("claude-3-5-sonnet-20241022", MANUAL | {}, '"thinking.type.enabled" is not supported'),
        ("claude-opus-4-7", thinking("enabled", budget_tokens=1024), '"thinking.type.enabled" is not supported'),
        ("claude-haiku-4-5-20251001", thinking("adaptive"), '"thinking.type.adaptive" is not supported'),
        ("claude-opus-5-5", thinking("disabled"), '"thinking.type.disabled" is not supported'),
        ("claude-sonnet-5-5", thinking("disabled"), '"thinking.type.disabled" is not supported'),
        ("claude-fable-5", thinking("disabled"), '"thinking.type.disabled" is not supported'),
        ("claude-opus-5", thinking("disabled") | effort("xhigh"), "not supported at effort 'xhigh'"),
        ("claude-sonnet-5-5", thinking("between_tools") | effort("max"), "not supported at effort 'max'"),
        ("claude-sonnet-5", thinking("between_tools"), '"thinking.type.between_tools" is not supported'),
        ("claude-sonnet-4-5", effort("low"), "This model does not support the effort parameter."),
        ("claude-opus-4-6", effort("xhigh"), "This model does not support effort level 'xhigh'."),
        ("claude-opus-4-8", effort("minimal"), "output_config.effort: Input should be 'low'"),
        ("claude-sonnet-4-5", thinking("enabled"), "thinking.budget_tokens: Field required"),
        ("claude-opus-4-8", thinking("adaptive", budget_tokens=1024), "thinking.adaptive.budget_tokens: Extra inputs"),
        ("claude-opus-4-8", thinking("adaptive", display="all"), "thinking.adaptive.display: Input should be"),
        ("claude-sonnet-4-5", MANUAL | {"temperature": 0.5}, "`temperature` may only be set to 1"),
        ("claude-sonnet-4-5", MANUAL | {"top_k": 5}, "`top_k` must be unset"),
        ("claude-sonnet-4-6", thinking("adaptive") | {"temperature": 0.5}, "`temperature` may only be set to 1"),
        ("claude-sonnet-4-5", {"temperature": 1, "top_p": 1}, "`temperature` and `top_p` cannot both be specified"),
        (
            "claude-sonnet-4-5",
            MANUAL | {"tools": [TOOL], "tool_choice": {"type": "any"}},
            "Thinking may not be enabled",
        ),
        ("claude-mythos-5-1", {"tools": [TOOL], "tool_choice": {"type": "any"}}, "tool_choice: type"),
        ("claude-haiku-4-5", {"max_tokens": 21_334}, "max_tokens: Streaming is required"),
    ],
)
async def test_each_model_refuses_what_it_does_not_know(
    post: Post, model: str, fields: dict[str, Any], words: str
) -> None:
    """In the words of the API."""
    assert words in await message_of(await post("anthropic", fields | {"model": model}))


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("claude-3-7-sonnet-20250219", MANUAL),
        ("claude-opus-4-6", MANUAL),
        ("claude-opus-4-8", thinking("disabled") | effort("max")),
        ("claude-opus-5", thinking("disabled") | effort("high")),
        ("claude-sonnet-5-5", thinking("between_tools") | effort("low")),
        ("claude-opus-4-5", effort("high")),
        ("claude-opus-4-8", ADAPTIVE | {"tools": [TOOL], "tool_choice": {"type": "any"}}),
        ("claude-haiku-4-5", {"max_tokens": 21_333}),
        ("claude-haiku-4-5", {"max_tokens": 64_000, "stream": True}),
        ("somebody-elses", MANUAL | {"temperature": 1}),
    ],
)
async def test_each_model_takes_what_it_knows(post: Post, model: str, fields: dict[str, Any]) -> None:
    """Models without a version take anything."""
    assert (await post("anthropic", fields | {"model": model})).status == 200


@pytest.mark.parametrize(
    ("model", "fields", "thinks", "shown"),
    [
        ("claude-sonnet-4-5", {}, False, False),
        ("claude-sonnet-4-5", MANUAL, True, True),
        ("claude-opus-4-6", thinking("adaptive"), True, True),
        ("claude-opus-4-8", {}, False, False),
        ("claude-opus-4-8", thinking("adaptive"), True, False),
        ("claude-opus-4-8", SHOWN, True, True),
        ("claude-opus-4-6", thinking("adaptive", display="omitted"), True, False),
        ("claude-opus-5", {}, True, False),
        ("claude-opus-5", thinking("disabled"), False, False),
        ("claude-haiku-5-5", {}, True, False),
        ("claude-sonnet-5-5", thinking("between_tools"), False, False),
    ],
)
async def test_thoughts_come_first(post: Post, model: str, fields: dict[str, Any], thinks: bool, shown: bool) -> None:
    """Whole and streamed alike; hidden ones have a signature all the same."""
    fields = fields | {"model": model}
    body = await (await post("anthropic", fields)).json()
    first = body["content"][0]
    assert (first["type"] == "thinking", bool(first.get("thinking"))) == (thinks, shown)
    seen = await events(await post("anthropic", fields | {"stream": True}))
    deltas = [event["delta"] for event in seen if event["type"] == "content_block_delta"]
    thought = "".join(delta.get("thinking", "") for delta in deltas)
    signed = [delta["signature"] for delta in deltas if delta["type"] == "signature_delta"]
    assert thought == first.get("thinking", "")
    assert signed == ([first["signature"]] if thinks else [])
    assert ("output_tokens_details" in body["usage"]) == thinks
    assert seen[-2]["usage"]["output_tokens"] == body["usage"]["output_tokens"]


async def test_scripted_thoughts_are_thought(post: Post) -> None:
    """Word by word, and counted."""
    body = await (await post("anthropic", MANUAL, behaviour='reasoning="One moment."; text=Noon')).json()
    assert [block.get("thinking") or block["text"] for block in body["content"]] == ["One moment.", "Noon"]
    assert body["usage"]["output_tokens"] == 3
    assert body["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


async def ask_for_tool(post: Post, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Let the model think and use the tool; return its blocks."""
    content = (await (await post("anthropic", fields | {"tools": [TOOL]})).json())["content"]
    assert [block["type"] for block in content] == ["thinking", "tool_use"]
    return list(content)


def answering(content: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Continue the conversation with the tool's result."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "noon"}
        for block in content
        if block["type"] == "tool_use"
    ]
    turns = [USER, {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    return {"messages": turns, "tools": [TOOL], **fields}


@pytest.mark.parametrize("fields", [MANUAL, ADAPTIVE, ADAPTIVE | SHOWN, {"model": "claude-opus-5-5"}])
async def test_unchanged_thoughts_are_taken_back(post: Post, fields: dict[str, Any]) -> None:
    """Shown or hidden, on models that bind them and on those that do not."""
    fields = fields | {"messages": [USER]}
    content = await ask_for_tool(post, fields)
    response = await post("anthropic", answering(content, **{k: v for k, v in fields.items() if k != "messages"}))
    assert response.status == 200


async def test_manual_thinking_wants_its_thoughts_back(post: Post) -> None:
    """Leaving them out is refused; with adaptive thinking it is fine."""
    for fields, status in ((MANUAL, 400), (ADAPTIVE, 200)):
        content = await ask_for_tool(post, fields | {"messages": [USER]})
        response = await post("anthropic", answering(content[1:], **fields))
        assert response.status == status
        if status == 400:
            words = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
            assert words in await message_of(response)


async def test_thoughts_are_taken_back_all_or_none(post: Post) -> None:
    """Within one round of tools."""
    first = await ask_for_tool(post, ADAPTIVE | {"messages": [USER]})
    fields = answering(first, **ADAPTIVE)
    again = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2", "content": "one"}]}
    fields["messages"] += [again, result]
    assert "passed back complete" in await message_of(await post("anthropic", fields))
    fields["messages"][1] = {"role": "assistant", "content": first[1:]}
    assert (await post("anthropic", fields)).status == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"signature": "sig"}, "messages.1.content.0: Invalid `signature` in `thinking` block"),
        ({"thinking": "Something else."}, "cannot be modified"),
    ],
)
async def test_changed_thoughts_are_refused(post: Post, change: dict[str, str], words: str) -> None:
    """Another signature, or other words."""
    content = await ask_for_tool(post, MANUAL | {"messages": [USER]})
    content[0] |= change
    assert words in await message_of(await post("anthropic", answering(content, **MANUAL)))


async def test_another_models_thoughts_are_dropped(post: Post) -> None:
    """Without a word."""
    content = await ask_for_tool(post, ADAPTIVE | {"messages": [USER]})
    assert (await post("anthropic", answering(content, model="claude-opus-5-5"))).status == 200


async def test_newer_models_bind_thoughts_to_their_conversation(post: Post) -> None:
    """Another system prompt or other tools break the bond, breakpoints do not; blocks may be dropped instead."""
    model = {"model": "claude-opus-5-5"}
    content = await ask_for_tool(post, model | {"messages": [USER], "system": "Be brief."})
    fine = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert (await post("anthropic", answering(content, system=fine, **model))).status == 200
    for other in ({"system": "Be long."}, {"system": "Be brief.", "tools": [TOOL, TOOL | {"name": "ruler"}]}):
        words = await message_of(await post("anthropic", answering(content, **model) | other))
        assert words.endswith("bound to a different conversation")
    dropping = thinking("adaptive", block_binding={"prefix_mismatch_behavior": "drop_block"})
    assert (await post("anthropic", answering(content, **model) | dropping)).status == 200
    older = await ask_for_tool(post, ADAPTIVE | {"messages": [USER], "system": "Be brief."})
    assert (await post("anthropic", answering(older, system="Be long.", **ADAPTIVE))).status == 200


async def test_thoughts_do_not_matter_where_none_are_thought(post: Post) -> None:
    """Without thinking the blocks are not looked at."""
    content = [{"type": "thinking", "thinking": "x", "signature": "y"}, {"type": "text", "text": "Hello."}]
    turns = [USER, {"role": "assistant", "content": content}, USER]
    assert (await post("anthropic", {"messages": turns})).status == 200
