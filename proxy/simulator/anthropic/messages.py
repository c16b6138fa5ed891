"""Judge the messages of a Messages API request, and reduce them to turns."""

from itertools import pairwise
from typing import Any

import msgspec

from proxy.simulator.answers import Turn
from proxy.simulator.anthropic.blocks import check_block, check_text
from proxy.simulator.anthropic.checks import choice, known_fields, mapping, needed_fields, refuse
from proxy.simulator.dialect import Body


def read_messages(messages: list[Any], *, prefill: bool, strict: bool = False) -> tuple[Turn, ...]:
    """Judge the conversation; raises Refused.

    Args:
        messages: as sent.
        prefill: whether the model continues a final assistant message.
        strict: whether the newer version of the API is spoken.

    Source: Anthropic API reference, "Create a Message", messages; "Handle tool calls".
    """
    if not messages:
        raise refuse("messages: at least one message is required")
    spoken = [_blocks_of(f"messages.{index}", each, strict=strict) for index, each in enumerate(messages)]
    _check_order(messages, spoken, prefill=prefill)
    _check_tools(messages, spoken)
    return tuple(
        turn for message, blocks in zip(messages, spoken, strict=True) for turn in _turns(message["role"], blocks)
    )


def _blocks_of(path: str, message: Any, *, strict: bool) -> list[Body]:
    """Return the checked blocks of a message; a plain string is one block of text."""
    mapping(path, message)
    needed_fields(path, message, "role", "content")
    if message["role"] == "system":
        raise refuse(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not '
            '"system" as an input message role.'
        )
    choice("user", "assistant")(f"{path}.role", message["role"])
    known_fields(path, message, frozenset({"role", "content"}))
    content = message["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise refuse(f"{path}.content: Input should be a valid string or a valid list")
    for index, block in enumerate(content):
        check_block(f"{path}.content.{index}", block, message["role"], strict=strict)
    return content


def _check_order(messages: list[Body], spoken: list[list[Body]], *, prefill: bool) -> None:
    """Roles take turns, nobody is silent, and the end is not white space."""
    if messages[0]["role"] != "user":
        raise refuse('messages: first message must use the "user" role')
    for before, after in pairwise(messages):
        if before["role"] == after["role"]:
            raise refuse(
                'messages: roles must alternate between "user" and "assistant", but found multiple '
                f'"{after["role"]}" roles in a row'
            )
    last = len(messages) - 1
    for index, (message, blocks) in enumerate(zip(messages, spoken, strict=True)):
        if not blocks and not (index == last and message["role"] == "assistant"):
            raise refuse(f"messages.{index}: all messages must have non-empty content")
        if len(blocks) == 1 and blocks[0]["type"] == "text":
            check_text(f"messages.{index}.content", blocks[0]["text"])
    if messages[-1]["role"] == "assistant":
        if not prefill:
            raise refuse(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        final = spoken[-1][-1] if spoken[-1] else {}
        if final.get("type") == "text" and final["text"] != final["text"].rstrip():
            raise refuse("messages: final assistant content cannot end with trailing whitespace")


def _check_tools(messages: list[Body], spoken: list[list[Body]]) -> None:
    """Every tool_use is answered first thing in the next message, and nothing else is."""
    asked: list[str] = []
    seen: set[str] = set()
    for index, blocks in enumerate(spoken):
        leading = 0
        while leading < len(blocks) and blocks[leading]["type"] == "tool_result":
            leading += 1
        answered = {block["tool_use_id"] for block in blocks[:leading]}
        lacking = [each for each in asked if each not in answered]
        if lacking:
            raise _unanswered(index - 1, lacking)
        for place, block in enumerate(blocks):
            if block["type"] == "tool_result" and (place >= leading or block["tool_use_id"] not in asked):
                raise refuse(
                    f"messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` "
                    "block in the previous message."
                )
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(asked)) < len(asked) or seen & set(asked):
            raise refuse(f"messages.{index}: `tool_use` ids must be unique")
        seen |= set(asked)
    if asked:
        raise _unanswered(len(messages) - 1, asked)


def _unanswered(index: int, ids: list[str]) -> Exception:
    return refuse(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _turns(role: str, blocks: list[Body]) -> list[Turn]:
    """Reduce a message: one turn per tool result, then one for everything that was said."""
    results = [Turn("tool", _text_of(block.get("content", ""))) for block in blocks if block["type"] == "tool_result"]
    said = [block["text"] for block in blocks if block["type"] == "text"]
    said += [
        f"{block['name']} {msgspec.json.encode(block['input']).decode()}"
        for block in blocks
        if block["type"] == "tool_use"
    ]
    if results and not said:
        return list(results)
    return [*results, Turn("user" if role == "user" else "assistant", "\n".join(said))]


def _text_of(content: str | list[Body]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def count_images(messages: list[Body]) -> int:
    """Count the pictures and documents of a conversation that was judged, those of tool results included."""
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    blocks = [block for content in contents for block in content]
    results = [block["content"] for block in blocks if isinstance(block.get("content"), list)]
    return sum(
        block["type"] in ("image", "document") for block in [*blocks, *(each for one in results for each in one)]
    )
