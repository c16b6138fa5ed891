"""The anthropic dialect judges pictures, documents, formats and breakpoints."""

import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PDF = b"%PDF-1.7\n"
SCHEMA = {
    "type": "object",
    "properties": {"hour": {"type": "integer"}},
    "required": ["hour"],
    "additionalProperties": False,
}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def inline(media_type: str, data: bytes | str) -> dict[str, Any]:
    text = data if isinstance(data, str) else base64.b64encode(data).decode()
    return {"type": "base64", "media_type": media_type, "data": text}


def showing(kind: str, source: Any, **more: Any) -> dict[str, Any]:
    content = [{"type": kind, "source": source, **more}, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": content}]}


def formatted(schema: Any, **more: Any) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema, **more}}}


def properties(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named, "additionalProperties": False}


async def message_of(response: aiohttp.ClientResponse) -> str:
    assert response.status == 400
    return str((await response.json())["error"]["message"])


@pytest.mark.parametrize(
    "fields",
    [
        showing("image", inline("image/png", PNG)),
        showing("image", inline("image/jpeg", b"\xff\xd8\xff\xe0")),
        showing("image", inline("image/gif", b"GIF89a")),
        showing("image", inline("image/webp", b"RIFF0000WEBP")),
        showing("image", {"type": "url", "url": "https://example.org/a.png"}),
        showing("document", inline("application/pdf", PDF), title="A paper"),
        showing("document", {"type": "text", "media_type": "text/plain", "data": "words"}),
        showing("document", {"type": "url", "url": "https://example.org/a.pdf"}, citations={"enabled": True}),
    ],
)
async def test_pictures_and_documents_are_looked_at(post: Post, fields: dict[str, Any]) -> None:
    """Inline, or where a URL says."""
    assert (await post("anthropic", fields)).status == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (showing("image", inline("image/jpeg", PNG)), "does not match the provided media type image/jpeg"),
        (showing("image", inline("image/png", b"no picture")), "Could not process image"),
        (showing("image", inline("image/bmp", b"BM")), "media_type: Input should be 'image/jpeg'"),
        (showing("image", inline("image/png", "data:image/png;base64,")), "Invalid base64 data"),
        (showing("image", {"type": "url", "url": "http://example.org/a"}), "Only HTTPS URLs are supported."),
        (showing("image", {"type": "base64", "data": ""}), "source.base64.media_type: Field required"),
        (showing("image", "https://example.org/a.png"), "source: Input should be a valid dictionary"),
        (showing("image", {"type": "text", "media_type": "text/plain", "data": ""}), "source.type: Input should be"),
        (showing("document", inline("application/pdf", b"no PDF")), "The PDF specified was not valid."),
        (showing("document", inline("text/plain", b"x")), "media_type: Input should be 'application/pdf'"),
        (showing("document", {"type": "text", "media_type": "text/html", "data": ""}), "should be 'text/plain'"),
        (showing("document", inline("application/pdf", PDF), title=5), "document.title: Input should be a valid"),
    ],
)
async def test_what_is_not_what_it_is_said_to_be_is_refused(post: Post, fields: dict[str, Any], words: str) -> None:
    """Bytes, types and addresses."""
    assert words in await message_of(await post("anthropic", fields))


async def test_a_picture_may_be_too_large(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Beyond five mebibytes."""
    fields = showing("image", inline("image/png", PNG + bytes(5 * 1024 * 1024)))
    body = io.BytesIO(json.dumps({"model": "claude-haiku-4-5", "max_tokens": 9} | fields).encode())
    headers = {"anthropic-version": "2023-06-01", "content-type": "application/json"}
    response = await client.post(f"{simulator.base_url('anthropic')}/v1/messages", data=body, headers=headers)
    assert "image exceeds 5 MB maximum" in await message_of(response)


async def test_pictures_of_tool_results_are_judged_too(post: Post) -> None:
    """As those of users."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "camera", "input": {}}
    for source, status in ((inline("image/png", PNG), 200), (inline("image/gif", PNG), 400)):
        result = {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [{"type": "image", "source": source}, {"type": "text", "text": "taken"}],
        }
        turns = [("user", "look"), ("assistant", [call]), ("user", [result])]
        messages = [{"role": role, "content": content} for role, content in turns]
        assert (await post("anthropic", {"messages": messages})).status == status


async def test_the_newer_version_is_stricter(post: Post) -> None:
    """No documents of the assistant, and no citations of the user."""
    source = {"type": "text", "media_type": "text/plain", "data": "words"}
    document = [{"type": "document", "source": source}]
    cited = [{"type": "text", "text": "x", "citations": [{"type": "char_location"}]}]
    user = {"role": "user", "content": "x"}
    for messages in ([user, {"role": "assistant", "content": document}, user], [{"role": "user", "content": cited}]):
        assert (await post("anthropic", {"messages": messages})).status == 200
        response = await post("anthropic", {"messages": messages}, headers={"anthropic-version": "2026-10-21"})
        assert response.status == 400


async def test_a_format_is_followed(post: Post) -> None:
    """The text is JSON with what the schema requires."""
    body = await (await post("anthropic", formatted(SCHEMA))).json()
    assert list(json.loads(body["content"][0]["text"])) == ["hour"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (formatted({"type": "object"}), "'additionalProperties' must be explicitly set to false"),
        (formatted(properties(a={"type": "object"})), "'additionalProperties' must be explicitly set to false"),
        (formatted(properties(a={"type": "integer", "minimum": 1})), "For 'integer' type, properties minimum"),
        (formatted(properties(a={"type": "string", "maxLength": 1})), "properties maxLength are not supported"),
        (formatted(properties(a={"type": "array", "items": {}, "minItems": 2})), "properties minItems"),
        (formatted(properties(a={"anyOf": [{"type": "array", "maxItems": 2}]})), "properties maxItems"),
        (formatted(properties(a={"$ref": "#"})), "Recursive schemas are not supported"),
        (
            formatted(properties(a={"$ref": "#/$defs/n"}) | {"$defs": {"n": properties(n={"$ref": "#/$defs/n"})}}),
            "Recursive schemas are not supported: 'n'",
        ),
        (formatted({"type": 5}), "output_config.format.schema: schema.type is of the wrong type"),
        (formatted(SCHEMA, name="x"), "output_config.format.name: Extra inputs are not permitted"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type: Input should be"),
        ({"output_config": {"verbosity": "low"}}, "output_config.verbosity: Extra inputs are not permitted"),
        (formatted(SCHEMA) | {"model": "claude-sonnet-4-0"}, "does not support structured outputs"),
        (
            formatted(SCHEMA) | {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "incompatible with assistant message prefill",
        ),
        (
            formatted(SCHEMA)
            | showing("document", {"type": "url", "url": "https://x.org/a"}, citations={"enabled": True}),
            "incompatible with citations",
        ),
    ],
)
async def test_a_format_that_cannot_be_followed_is_refused(post: Post, fields: dict[str, Any], words: str) -> None:
    """Keywords that constrain numbers and lengths, open objects, recursion, and what excludes a format."""
    assert words in await message_of(await post("anthropic", fields))


@pytest.mark.parametrize("odd", [[], 5, "x", True])
async def test_definitions_that_are_no_table_hold_nothing(post: Post, odd: Any) -> None:
    """They are looked at by nobody."""
    assert (await post("anthropic", formatted(SCHEMA | {"$defs": odd}))).status == 200


async def test_shared_definitions_are_no_recursion(post: Post) -> None:
    """Nor is the first of an array's items a length."""
    schema = properties(a={"$ref": "#/$defs/n"}, b={"$ref": "#/$defs/n"}, c={"type": "array", "minItems": 1})
    schema["$defs"] = {"n": properties(x={"type": "string"})}
    for model in ("claude-haiku-4-5", "claude-opus-4-1", "somebody-elses"):
        assert (await post("anthropic", formatted(schema) | {"model": model})).status == 200


async def test_a_breakpoint_is_written_first_and_read_later(post: Post) -> None:
    """What lies before it is not among the input tokens."""
    system = [{"type": "text", "text": "one two three", **EPHEMERAL}]
    usage = (await (await post("anthropic", {"system": system})).json())["usage"]
    assert (usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"], usage["input_tokens"]) == (3, 0, 6)
    turns = [("user", "hi"), ("assistant", "hello"), ("user", [{"type": "text", "text": "and now", **EPHEMERAL}])]
    messages = [{"role": role, "content": content} for role, content in turns]
    usage = (await (await post("anthropic", {"system": system, "messages": messages})).json())["usage"]
    assert (usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"], usage["input_tokens"]) == (0, 7, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "forever"}}]},
            "system.0.cache_control.type: Input should be 'ephemeral'",
        ),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}}]},
            "cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
        ),
        (
            {"system": [{"type": "text", "text": "x", **EPHEMERAL}] * 5},
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        ({"metadata": {"user_id": "x" * 257}}, "metadata.user_id: String should have at most 256 characters"),
    ],
)
async def test_breakpoints_and_users_are_judged(post: Post, fields: dict[str, Any], words: str) -> None:
    """How many there are, and what they say."""
    assert words in await message_of(await post("anthropic", fields))


async def test_a_refusal_explains_itself(post: Post) -> None:
    """In the whole message and at the end of a stream."""
    body = await (await post("anthropic", behaviour="finish=refusal")).json()
    assert body["stop_details"]["type"] == "refusal"
    assert (
        '"stop_details":{"type":"refusal"'
        in await (await post("anthropic", {"stream": True}, behaviour="finish=refusal")).text()
    )


async def test_limits_are_told_by_kind(post: Post) -> None:
    """Requests, tokens, and those of input and output."""
    headers = (await post("anthropic")).headers
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        for name in ("limit", "remaining", "reset"):
            assert headers[f"anthropic-ratelimit-{kind}-{name}"]
