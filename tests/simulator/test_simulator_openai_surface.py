"""The openai dialect's wider surface: parts, formats, log probabilities, functions, families of models, sound."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock, as json"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
FUNCTION = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
STREAM = {"stream": True}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def schema(**changes: Any) -> dict[str, Any]:
    inner = {"name": "x", "strict": True, "schema": SCHEMA | changes}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ],
)
async def test_pictures_sounds_and_files_are_accepted(post: Post, part: dict[str, Any]) -> None:
    """Where they are well-formed."""
    assert (await post("openai", user({"type": "text", "text": "see"}, part))).status == 200


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}, "image_url.url", "invalid_image_url"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}},
            "image_url.url",
            "invalid_image_format",
        ),
        ({"type": "image_url", "image_url": {"url": "ftp://x"}}, "image_url.url", "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": PIXEL, "detail": "ultra"}}, "image_url.detail", "invalid_value"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA"}}, "input_audio.format", "missing_required_parameter"),
        ({"type": "input_audio", "input_audio": {"data": "?", "format": "mp3"}}, "input_audio.data", "invalid_value"),
        ({"type": "file", "file": {}}, "file", None),
        (
            {"type": "file", "file": {"file_data": "data:a/b;base64,AAAA"}},
            "file.filename",
            "missing_required_parameter",
        ),
    ],
)
async def test_broken_parts_are_refused_by_place(post: Post, part: dict[str, Any], param: str, code: str) -> None:
    """The path leads into the part."""
    error = (await (await post("openai", user(part))).json())["error"]
    assert (error["param"], error["code"]) == (f"messages[0].content[0].{param}", code)


async def test_an_answer_keeps_to_its_schema(post: Post) -> None:
    """Whole and streamed; a strict schema that is right is accepted."""
    fields = schema()
    text = (await (await post("openai", fields)).json())["choices"][0]["message"]["content"]
    assert set(json.loads(text)) == {"city", "days"}
    seen = await chunks(await post("openai", STREAM | fields))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in seen) == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"additionalProperties": True}, "In context=(), 'additionalProperties' is required to be supplied"),
        ({"required": ["city"]}, "Missing 'days'"),
        ({"type": "array"}, "schema must be a JSON Schema of 'type: \"object\"'"),
        ({"allOf": []}, "'allOf' is not permitted"),
        (
            {"properties": {"city": {"type": "object", "properties": {}}}, "required": ["city"]},
            "In context=('properties', 'city')",
        ),
    ],
)
async def test_a_schema_that_is_not_strict_is_refused(post: Post, changes: dict[str, Any], words: str) -> None:
    """In OpenAI's words, for answers and for functions."""
    error = (await (await post("openai", schema(**changes))).json())["error"]
    assert error["param"] == "response_format"
    assert error["message"].startswith("Invalid schema for response_format 'x': ")
    assert words in error["message"]
    function = {"name": "f", "strict": True, "parameters": SCHEMA | changes}
    error = (await (await post("openai", {"tools": [{"type": "function", "function": function}]})).json())["error"]
    assert error["code"] == "invalid_function_parameters"
    assert words in error["message"]


async def test_a_json_object_must_be_asked_for_in_words(post: Post) -> None:
    """Then the answer is one."""
    fields = {"response_format": {"type": "json_object"}}
    assert (await (await post("openai", fields)).json())["error"]["param"] == "messages"
    body = await (await post("openai", fields | {"messages": [USER]})).json()
    assert isinstance(json.loads(body["choices"][0]["message"]["content"]), dict)


async def test_log_probabilities_are_the_same_whole_and_streamed(post: Post) -> None:
    """Each token with bytes and its alternatives."""
    fields = {"logprobs": True, "top_logprobs": 3}
    choice = (await (await post("openai", fields)).json())["choices"][0]
    entries = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(set(entry) == {"token", "logprob", "bytes", "top_logprobs"} for entry in entries)
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
    seen = await chunks(await post("openai", STREAM | fields))
    assert [chunk["choices"][0]["logprobs"]["content"][0] for chunk in seen[1:-1]] == entries


@pytest.mark.parametrize(("choice", "finish"), [("auto", "function_call"), ({"name": "clock"}, "stop")])
async def test_functions_are_answered_as_functions(post: Post, choice: Any, finish: str) -> None:
    """The deprecated pair, whole and streamed."""
    fields = {"functions": [FUNCTION], "function_call": choice, "messages": [USER]}
    (answer,) = (await (await post("openai", fields)).json())["choices"]
    assert answer["message"]["function_call"] == {"name": "clock", "arguments": "{}"}
    assert ("tool_calls" in answer["message"], answer["finish_reason"]) == (False, finish)
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(await post("openai", STREAM | fields))]
    assert [delta["function_call"] for delta in deltas if "function_call" in delta] == [
        {"name": "clock", "arguments": ""},
        {"arguments": "{}"},
    ]


async def test_a_function_result_continues_the_conversation(post: Post) -> None:
    """An assistant's function_call, then a message of the role function."""
    called = {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}}
    result = {"role": "function", "name": "clock", "content": "noon"}
    body = await (await post("openai", {"messages": [USER, called, result]})).json()
    assert "noon" in body["choices"][0]["message"]["content"]
    error = (await (await post("openai", {"messages": [USER, called, result | {"name": None}]})).json())["error"]
    assert error["param"] == "messages[2].name"


@pytest.mark.parametrize(
    ("model", "fields", "param", "code"),
    [
        ("gpt-5.4", {"tools": [TOOL]}, "reasoning_effort", None),
        ("gpt-6", {"tools": [TOOL], "reasoning_effort": "low"}, "reasoning_effort", None),
        ("gpt-6.1-sol", {"tools": [TOOL], "reasoning_effort": "none"}, "reasoning_effort", "unsupported_value"),
        ("o3", {"max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ("o3", {"stop": "x"}, "stop", "unsupported_parameter"),
        ("o4-mini", {"logprobs": True}, "logprobs", "unsupported_parameter"),
        ("gpt-5.4", {"temperature": 0.5}, "temperature", "unsupported_value"),
        ("gpt-4o-mini", {"reasoning_effort": "low"}, "reasoning_effort", None),
    ],
)
async def test_families_of_models_refuse_what_they_do(
    post: Post, model: str, fields: dict[str, Any], param: str, code: str | None
) -> None:
    """Status 400 with the field's name."""
    response = await post("openai", {"model": model} | fields)
    error = (await response.json())["error"]
    assert (response.status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("gpt-5.4", {"tools": [TOOL], "reasoning_effort": "none"}),
        ("gpt-5.4", {"temperature": 0.5, "reasoning_effort": "none"}),
        ("gpt-5-mini", {"tools": [TOOL]}),
        ("gpt-5.2-chat-latest", {"temperature": 0.5}),
        ("gpt-4o", {"temperature": 0.5, "max_tokens": 5}),
    ],
)
async def test_families_of_models_accept_the_rest(post: Post, model: str, fields: dict[str, Any]) -> None:
    """Without effort, tools and sampling are open again."""
    assert (await post("openai", {"model": model} | fields)).status == 200


async def test_thoughts_are_counted_but_not_shown(post: Post) -> None:
    """By effort, or as scripted; long prompts are cached in part."""
    body = await (await post("openai", {"model": "gpt-5-mini", "reasoning_effort": "low"})).json()
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 16
    body = await (await post("openai", behaviour='reasoning="a b c"; text="d"')).json()
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
    assert body["usage"]["completion_tokens"] == 4
    assert "a b c" not in str(body)
    body = await (await post("openai", {"messages": [{"role": "user", "content": "word " * 1200}]})).json()
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 1152


async def test_thoughts_may_use_all_the_tokens(post: Post) -> None:
    """Then nothing is left to say."""
    body = await (
        await post("openai", {"model": "gpt-5-mini", "reasoning_effort": "high", "max_completion_tokens": 20})
    ).json()
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("", "length")
    assert body["usage"]["completion_tokens"] == 20


async def test_sound_is_answered_with_its_transcript(post: Post) -> None:
    """No content beside it; the field `audio` is needed."""
    fields: dict[str, Any] = {"modalities": ["text", "audio"]}
    assert (await (await post("openai", fields)).json())["error"]["param"] == "audio"
    fields["audio"] = {"voice": "alloy", "format": "pcm16"}
    message = (await (await post("openai", fields)).json())["choices"][0]["message"]
    assert message["content"] is None
    assert set(message["audio"]) == {"id", "data", "expires_at", "transcript"}
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(await post("openai", STREAM | fields))]
    spoken = "".join(delta.get("audio", {}).get("transcript", "") for delta in deltas)
    assert spoken == message["audio"]["transcript"]


async def test_one_model_is_told(simulator: Simulator) -> None:
    """The official client finds it; Azure's header is a credential too."""
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        assert (await openai.models.retrieve("gpt-5-mini")).id == "gpt-5-mini"


async def test_azures_header_is_a_credential(client: aiohttp.ClientSession) -> None:
    """The key may come in api-key."""
    async with Simulator(keys={"openai": "sk-right"}) as simulator:
        url = f"{simulator.base_url('openai')}/models"
        assert (await client.get(url, headers={"api-key": "sk-right"})).status == 200
        assert (await client.get(url, headers={"api-key": "sk-wrong"})).status == 401


async def test_the_official_client_parses_a_schema(simulator: Simulator) -> None:
    """Its own strict schema is accepted, and the answer fits it."""
    simulator.always("openai", Behaviour())
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        form: Any = schema()["response_format"]
        answer = await openai.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}], response_format=form
        )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "days"}
