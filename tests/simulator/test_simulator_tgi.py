"""The tgi dialect judges and answers chats as Text Generation Inference does."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator

Chat = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "0", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
STREAM = {"stream": True}
SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}


@pytest.fixture
def chat(simulator: Simulator, client: aiohttp.ClientSession) -> Chat:
    """Post a chat: fields are added to a minimal valid body."""

    async def send(fields: dict[str, Any] | None = None, behaviour: str = "") -> aiohttp.ClientResponse:
        body = {"model": "tgi", "messages": [USER]} | (fields or {})
        url = f"{simulator.base_url('tgi')}/v1/chat/completions"
        return await client.post(url, json=body, headers={"x-simulate": behaviour} if behaviour else {})

    return send


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": None}, "messages: invalid type: null, expected a sequence"),
        ({"messages": [{"role": "user"}]}, "messages[0]: data did not match any variant of untagged enum MessageBody"),
        ({"messages": [{"role": "assistant", "content": None}]}, "MessageBody"),
        ({"messages": [{"content": "x"}]}, "messages[0]: missing field `role`"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "untagged enum MessageContent"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "0"}]}]}, "missing field `type`"),
        ({"stop": "x"}, 'stop: invalid type: string "x", expected a sequence'),
        ({"logit_bias": {"5": 1}}, "logit_bias: invalid type: map, expected a sequence"),
        ({"response_format": {"type": "text"}}, "response_format: unknown variant `text`"),
        ({"response_format": {"type": "json_object"}}, "response_format: missing field `value`"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "unknown variant `json_schema`"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "missing field `parameters`"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, "tool_choice: data did not match"),
        ({"seed": -1}, "seed: invalid value: integer `-1`, expected u64"),
        ({"stream_options": None}, "stream_options: invalid type: null"),
        ({"stream": None}, "stream: invalid type: null"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "duplicate field `max_tokens`"),
        ({"max_tokens": 1.5}, "max_tokens: invalid type: floating point `1.5`, expected u64"),
        ({"temperature": "hot"}, 'temperature: invalid type: string "hot", expected f32'),
    ],
)
async def test_a_body_of_the_wrong_types_is_a_plain_422(chat: Chat, fields: dict[str, Any], words: str) -> None:
    """Refused before anything else, streaming or not."""
    for stream in ({}, STREAM):
        response = await chat(stream | fields)
        assert (response.status, response.content_type) == (422, "text/plain")
        assert (await response.text()).startswith("Failed to deserialize the JSON body into the target type: ")
        assert words in await response.text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"temperature": -1}, "`temperature` must be strictly positive"),
        ({"frequency_penalty": 3}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"presence_penalty": -2}, "`repetition_penalty` must be strictly positive"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"logprobs": True, "top_logprobs": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"max_tokens": 131072}, "`inputs` tokens + `max_new_tokens` must be <= 131072."),
    ],
)
async def test_a_value_out_of_bounds_has_a_status_only_without_a_stream(
    chat: Chat, fields: dict[str, Any], words: str
) -> None:
    """Streamed, the same refusal is an event on a 200, and [DONE] follows it."""
    response = await chat(fields)
    body = await response.json()
    assert (response.status, body["error_type"]) == (422, "validation")
    assert body["error"].startswith(f"Input validation error: {words}")
    response = await chat(STREAM | fields)
    assert response.status == 200
    assert await chunks(response) == [{"error": {"message": body["error"], "http_status_code": 422}}]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": []}, "Template error: invalid operation: messages must not be empty"),
        (
            {"messages": [{"role": "developer", "content": "x"}]},
            "Template error: invalid operation: Unexpected message role developer",
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "json", "value": SCHEMA}},
            "Tool error: Grammar and tools are mutually exclusive",
        ),
        ({"tools": [TOOL], "tool_choice": "ruler"}, "Tool error: Tool with name ruler not found"),
        (
            {"tools": [{"type": "function", "function": {"name": "clock", "parameters": True}}]},
            "Tool error: Tool clock: parameters must be an object",
        ),
    ],
)
async def test_what_fails_in_preparation_has_a_status_always(chat: Chat, fields: dict[str, Any], error: str) -> None:
    """Template and tools come before the stream."""
    for stream in ({}, STREAM):
        response = await chat(stream | fields)
        assert response.status == 422
        assert (await response.json())["error"] == error


async def test_a_body_must_be_json_and_say_so(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Broken JSON is a 400, another content type a 415, both plain."""
    url = f"{simulator.base_url('tgi')}/v1/chat/completions"
    for kind, status in (("application/json", 400), ("text/plain", 415)):
        response = await client.post(url, data=b"{", headers={"content-type": kind})
        assert (response.status, response.content_type) == (status, "text/plain")


async def test_another_model_is_an_adapter(chat: Chat) -> None:
    """Known ones are served, others fail in the generation."""
    for model in ("tgi", "meta-llama/Llama-3.1-8B-Instruct", "support-adapter"):
        assert (await chat({"model": model})).status == 200
    response = await chat({"model": "gpt-4o"})
    assert (response.status, (await response.json())["error_type"]) == (424, "generation")
    (event,) = await chunks(await chat({"model": "gpt-4o"} | STREAM))
    assert event["error"]["http_status_code"] == 424


async def test_what_is_unused_or_unknown_is_ignored(chat: Chat) -> None:
    """Also null where a field may be absent, and a temperature of 0."""
    fields = {"n": 3, "user": "x", "odd": 1, "tools": None, "stop": None, "temperature": 0, "tool_choice": "auto"}
    body = await (await chat(fields)).json()
    assert len(body["choices"]) == 1


async def test_an_answer_has_the_real_shape(chat: Chat) -> None:
    """The id is empty, usage has three numbers, times are headers."""
    response = await chat()
    body = await response.json()
    assert (body["id"], body["object"], body["model"]) == ("", "chat.completion", "meta-llama/Llama-3.1-8B-Instruct")
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["logprobs"], choice["message"]["role"]) == ("stop", None, "assistant")
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert response.headers["x-prompt-tokens"] == str(body["usage"]["prompt_tokens"])


async def test_every_chunk_has_a_role_and_created_changes(chat: Chat) -> None:
    """The chunks say what the whole answer says; the last token brings the finish reason."""
    whole = await (await chat()).json()
    seen = await chunks(await chat(STREAM))
    assert {chunk["id"] for chunk in seen} == {""}
    assert len({chunk["created"] for chunk in seen}) > 1
    choices = [chunk["choices"][0] for chunk in seen]
    assert {choice["delta"]["role"] for choice in choices} == {"assistant"}
    said = "".join(choice["delta"]["content"] for choice in choices)
    assert said == whole["choices"][0]["message"]["content"]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


async def test_usage_is_streamed_only_if_asked_for(chat: Chat) -> None:
    """In a chunk without choices; before it usage is null."""
    assert all(chunk["choices"] for chunk in await chunks(await chat(STREAM)))
    seen = await chunks(await chat(STREAM | {"stream_options": {"include_usage": True}}))
    assert [chunk["usage"] is None for chunk in seen] == [True] * (len(seen) - 1) + [False]
    assert seen[-1]["choices"] == []
    on_finish = await chunks(await chat(STREAM, behaviour="usage=finish_chunk"))
    assert on_finish[-1]["choices"][0]["finish_reason"] == "stop"
    assert on_finish[-1]["usage"]["total_tokens"] > 0


async def test_a_stop_sequence_stays_in_the_text(chat: Chat) -> None:
    """It is named in the finish reason, and streamed as any other token."""
    fields = {"stop": ["X"]}
    body = await (await chat(fields, behaviour='text="a X b"')).json()
    assert body["choices"][0]["message"]["content"] == "a X"
    assert body["choices"][0]["finish_reason"] == "stop_sequence"
    seen = await chunks(await chat(STREAM | fields, behaviour='text="a X b"'))
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in seen) == "a X"


async def test_a_limit_ends_with_the_last_token(chat: Chat) -> None:
    """No further chunk says so, and no special token comes."""
    seen = await chunks(await chat(STREAM | {"max_completion_tokens": 2}))
    assert [chunk["choices"][0]["finish_reason"] for chunk in seen] == [None, "length"]


async def test_at_most_one_tool_is_called(chat: Chat, simulator: Simulator) -> None:
    """Whole, its id is 0 and the finish reason is stop."""
    simulator.script("tgi", Behaviour(tool_calls=[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]))
    (choice,) = (await (await chat({"tools": [TOOL]})).json())["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("0", "a", '{"x":1}')
    assert choice["finish_reason"] == "stop"
    assert "content" not in choice["message"]


async def test_a_streamed_tool_call_repeats_its_id(chat: Chat) -> None:
    """The name comes once and is null later; the role is in every chunk."""
    behaviour = 'tool_calls=[{"name": "a", "arguments": {"x": 1, "y": "zwölf"}}]'
    seen = await chunks(await chat(STREAM | {"tools": [TOOL]}, behaviour=behaviour))
    deltas = [chunk["choices"][0]["delta"] for chunk in seen]
    assert {delta["role"] for delta in deltas} == {"assistant"}
    calls = [delta["tool_calls"][0] for delta in deltas[:-1]]
    assert {(call["index"], call["id"], call["type"]) for call in calls} == {(0, "0", "function")}
    assert [call["function"]["name"] for call in calls] == ["a"] + [None] * (len(calls) - 1)
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"x": 1, "y": "zwölf"}
    assert seen[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choice", ["required", "clock", {"type": "function", "function": {"name": "clock"}}])
async def test_a_tool_can_be_forced(chat: Chat, choice: Any) -> None:
    """Also by its bare name."""
    fields = {"messages": [USER | {"content": "hello"}], "tools": [TOOL], "tool_choice": choice}
    body = await (await chat(fields)).json()
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "clock"


async def test_content_makes_tool_calls_of_the_history_vanish(chat: Chat) -> None:
    """The prompt is shorter by them; results are quoted all the same."""
    result = {"role": "tool", "content": "noon"}
    lengths = []
    for extra in ({}, {"content": None}, {"content": ""}):
        asked = {"role": "assistant", "tool_calls": [CALL], **extra}
        body = await (await chat({"messages": [USER, asked, result]})).json()
        assert "noon" in body["choices"][0]["message"]["content"]
        lengths.append(body["usage"]["prompt_tokens"])
    assert lengths[0] == lengths[1] > lengths[2]


async def test_a_grammar_makes_json(chat: Chat) -> None:
    """Its own shape is understood."""
    body = await (await chat({"response_format": {"type": "json", "value": SCHEMA}})).json()
    assert list(json.loads(body["choices"][0]["message"]["content"])) == ["hour"]


async def test_log_probabilities_have_no_bytes(chat: Chat) -> None:
    """One entry per token, the special one included."""
    fields = {"logprobs": True, "top_logprobs": 2}
    (choice,) = (await (await chat(fields, behaviour="text=Hello")).json())["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["Hello", "</s>"]
    for entry in choice["logprobs"]["content"]:
        assert set(entry) == {"token", "logprob", "top_logprobs"}
        assert len(entry["top_logprobs"]) == 2
        assert entry["logprob"] < 0
    seen = await chunks(await chat(STREAM | fields, behaviour="text=Hello"))
    assert [chunk["choices"][0]["logprobs"]["content"][0] for chunk in seen] == choice["logprobs"]["content"]


@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("status=422", 422, "validation"),
        ("status=424", 424, "generation"),
        ("status=429", 429, "overloaded"),
        ("status=500", 500, "incomplete_generation"),
        ("error=overloaded", 429, "overloaded"),
        ("error=context_length_exceeded", 422, "validation"),
    ],
)
async def test_failures_come_within_the_stream(chat: Chat, behaviour: str, status: int, kind: str) -> None:
    """A status and a type without one, an event on a 200 with one."""
    response = await chat(behaviour=behaviour)
    body = await response.json()
    assert (response.status, body["error_type"]) == (status, kind)
    assert "retry-after" not in response.headers
    response = await chat(STREAM, behaviour=behaviour)
    assert response.status == 200
    assert await chunks(response) == [{"error": {"message": body["error"], "http_status_code": status}}]


async def test_a_failure_after_some_tokens_ends_properly(chat: Chat) -> None:
    """The error is an event, then comes [DONE], and no finish reason."""
    seen = await chunks(await chat(STREAM, behaviour='error_after=2; text="a b c d"'))
    assert [chunk["choices"][0]["finish_reason"] for chunk in seen[:-1]] == [None, None]
    assert seen[-1]["error"]["http_status_code"] == 424


async def test_a_warming_server_has_its_status_always(chat: Chat) -> None:
    """It answers 503 before it looks at the request."""
    for fields in ({}, STREAM):
        response = await chat(fields, behaviour="status=503")
        assert response.status == 503
        assert await response.json() == {"error": "unhealthy", "error_type": "healthcheck"}
