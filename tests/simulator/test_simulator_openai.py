"""The openai dialect judges and answers as the OpenAI API does."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, BadRequestError

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "noon"}


def data_lines(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    lines = data_lines((await response.read()).decode())
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({"foo": 1}, "foo", "unknown_parameter", "Unknown parameter: 'foo'."),
        ({"messages": []}, "messages", "empty_array", None),
        ({"messages": None}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
        ({"messages": "hi"}, "messages", "invalid_type", None),
        ({"messages": [{"role": "owner", "content": "x"}]}, "messages[0].role", "invalid_value", None),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter", None),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type", None),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type", None),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "empty_array", None),
        ({"messages": [USER | {"odd": 1}]}, "messages[0].odd", "unknown_parameter", None),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
            "invalid_value",
            None,
        ),
        ({"messages": [RESULT]}, "messages.[0].role", None, None),
        ({"messages": [USER, ASKED]}, "messages.[2].role", None, None),
        ({"messages": [USER, ASKED, USER]}, "messages.[2].role", None, None),
        ({"model": 5}, "model", "invalid_type", None),
        ({"temperature": 3}, "temperature", "decimal_above_max_value", None),
        ({"temperature": "1"}, "temperature", "invalid_type", None),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value", None),
        ({"n": 0}, "n", "integer_below_min_value", None),
        ({"n": True}, "n", "invalid_type", None),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length", None),
        ({"stop": [1]}, "stop", "invalid_type", None),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", None),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_parameter_combination", None),
        ({"model": "gpt-5-mini", "max_tokens": 1}, "max_tokens", "unsupported_parameter", None),
        ({"model": "gpt-5-mini", "temperature": 0.5}, "temperature", "unsupported_value", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None, None),
        ({"stream": True, "stream_options": {"odd": 1}}, "stream_options.odd", "unknown_parameter", None),
        ({"top_logprobs": 2}, "top_logprobs", None, None),
        ({"tools": []}, "tools", "empty_array", None),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter", None),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "invalid_value",
            None,
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"required": "x"}}}]},
            "tools[0].function.parameters",
            "invalid_function_parameters",
            "Invalid schema for function 'a': schema.required is of the wrong type.",
        ),
        ({"tool_choice": "auto"}, "tool_choice", None, None),
        ({"tools": [TOOL], "tool_choice": "all"}, "tool_choice", "invalid_value", None),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
            None,
            "Tool choice 'other' not found in 'tools' parameter.",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", None),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value", None),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    post: Post, fields: dict[str, Any], param: str, code: str | None, message: str | None
) -> None:
    """Status 400, the OpenAI error object, and the field that is wrong."""
    response = await post("openai", fields)
    error = (await response.json())["error"]
    assert response.status == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert message is None or error["message"] == message


async def test_a_missing_model_is_refused(post: Post) -> None:
    """The words are the API's own."""
    response = await post("openai", without=("model",))
    assert (await response.json())["error"]["message"] == "you must provide a model parameter"


async def test_broken_json_and_wrong_content_type_are_refused(
    simulator: Simulator, client: aiohttp.ClientSession
) -> None:
    """The body must be a JSON object that says it is one."""
    url = f"{simulator.base_url('openai')}/chat/completions"
    for body, content_type, start in (
        (b"{", "application/json", "We could not parse the JSON body"),
        (b"[]", "application/json", "We could not parse the JSON body"),
        (b"{}", "text/plain", "Invalid Content-Type header (text/plain)"),
    ):
        response = await client.post(url, data=body, headers={"content-type": content_type})
        assert response.status == 400
        assert (await response.json())["error"]["message"].startswith(start)


async def test_nulls_are_absence(post: Post) -> None:
    """Every optional field may be null."""
    names = ("temperature", "stop", "tools", "tool_choice", "stream", "n", "max_tokens", "stream_options", "user")
    response = await post("openai", dict.fromkeys(names))
    assert response.status == 200


async def test_a_completion_has_the_real_shape(post: Post) -> None:
    """Every member of the published object is there, nulls included, and the headers too."""
    response = await post("openai")
    body = await response.json()
    assert list(body) == [
        "id",
        "object",
        "created",
        "model",
        "service_tier",
        "system_fingerprint",
        "choices",
        "usage",
    ]
    (choice,) = body["choices"]
    content = choice["message"].pop("content")
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, "annotations": []},
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = body["usage"]
    assert usage["prompt_tokens"] == 6
    assert usage["completion_tokens"] == len(content.split())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert {"prompt_tokens_details", "completion_tokens_details"} < set(usage)
    assert response.headers["x-request-id"].startswith("req_")
    assert {"openai-processing-ms", "openai-version", "x-ratelimit-limit-requests"} < set(response.headers)
    assert response.headers["x-ratelimit-remaining-requests"] == "499"


async def test_the_stream_says_what_the_completion_says(post: Post) -> None:
    """Role first, then the same text in pieces, then the reason, and no usage unless asked."""
    whole = await (await post("openai")).json()
    response = await post("openai", {"stream": True})
    assert response.content_type == "text/event-stream"
    seen = await chunks(response)
    assert seen[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert seen[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in seen)
    assert text == whole["choices"][0]["message"]["content"]
    assert all("usage" not in chunk and chunk["id"] == whole["id"] for chunk in seen)


async def test_usage_comes_last_when_asked_for(post: Post) -> None:
    """All other chunks carry a null, the last carries the numbers and no choices."""
    whole = await (await post("openai")).json()
    seen = await chunks(await post("openai", {"stream": True, "stream_options": {"include_usage": True}}))
    assert all(chunk["usage"] is None for chunk in seen[:-1])
    assert (seen[-1]["choices"], seen[-1]["usage"]) == ([], whole["usage"])


@pytest.mark.parametrize(("usage", "places"), [("none", []), ("finish_chunk", [-1])])
async def test_usage_can_be_left_out_or_sent_with_the_reason(post: Post, usage: str, places: list[int]) -> None:
    """Some compatible servers do either, whatever was asked."""
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    seen = await chunks(await post("openai", fields, behaviour=f"usage={usage}"))
    assert [chunk for chunk in seen if "usage" in chunk] == [seen[place] for place in places]
    assert seen[-1]["choices"][0]["finish_reason"] == "stop"


async def test_several_choices_take_turns(post: Post) -> None:
    """n choices differ, their chunks carry their index, and their tokens are added."""
    body = await (await post("openai", {"n": 3})).json()
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert len(set(texts)) == 3
    assert body["usage"]["completion_tokens"] == sum(len(text.split()) for text in texts)
    seen = await chunks(await post("openai", {"n": 3, "stream": True}))
    assert [chunk["choices"][0]["index"] for chunk in seen[:6]] == [0, 1, 2, 0, 1, 2]
    streamed = ["", "", ""]
    for chunk in seen:
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"].get("content", "")
    assert streamed == texts


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "clock"}}, "stop"), ("auto", "tool_calls")],
)
async def test_tool_calls_finish_as_the_api_does(post: Post, choice: Any, finish: str) -> None:
    """A named tool finishes with stop; content is null beside tool calls."""
    body = await (await post("openai", {"messages": [USER], "tools": [TOOL], "tool_choice": choice})).json()
    assert body["choices"][0]["finish_reason"] == finish
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}


async def test_streamed_tool_calls_start_once_and_go_on_in_fragments(post: Post, simulator: Simulator) -> None:
    """Id, type and name come with empty arguments, then only fragments, which join to the JSON."""
    arguments = {"city": "Zürich 🙂", "days": [1, 2, 3]}
    simulator.script("openai", Behaviour(tool_calls=[{"name": "a", "arguments": arguments}, {"name": "b"}]))
    seen = await chunks(await post("openai", {"stream": True}))
    deltas = [call for chunk in seen for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    first = [delta for delta in deltas if delta["index"] == 0]
    assert set(first[0]) == {"index", "id", "type", "function"}
    assert first[0]["function"] == {"name": "a", "arguments": ""}
    assert all(set(delta) == {"index", "function"} for delta in first[1:])
    assert json.loads("".join(delta["function"]["arguments"] for delta in first)) == arguments
    assert len(first) > 2
    assert seen[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tool_result_is_answered_with_a_quotation(post: Post) -> None:
    """The second round of a tool conversation ends in text."""
    body = await (await post("openai", {"messages": [USER, ASKED, RESULT], "tools": [TOOL]})).json()
    assert "noon" in body["choices"][0]["message"]["content"]


async def test_both_paths_are_served(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Clients configured with and without /v1 arrive."""
    for path in ("/openai/v1/chat/completions", "/openai/chat/completions"):
        response = await client.post(simulator.url + path, json={"model": "any", "messages": [USER]})
        assert response.status == 200


async def test_the_official_client_reads_text_and_stream(simulator: Simulator) -> None:
    """AsyncOpenAI parses the completion, the chunks and the final usage."""
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        models = await openai.models.list()
        assert [model.id for model in models.data] == ["gpt-4o-mini", "gpt-5-mini"]
        ask: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me of the sea"}]}
        whole = await openai.chat.completions.create(**ask)
        async with openai.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
            final = await stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage


async def test_the_official_client_runs_a_tool_conversation(simulator: Simulator) -> None:
    """AsyncOpenAI assembles streamed tool calls, and its own message may be sent back."""
    tools: Any = [TOOL, TOOL | {"function": {"name": "ruler"}}]
    messages: list[Any] = [{"role": "user", "content": "use clock and ruler"}]
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        async with openai.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        calls = message.tool_calls or []
        assert [call.function.name for call in calls] == ["clock", "ruler"]
        messages.append(
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump(exclude_none=True) for call in calls]}
        )
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "noon"} for call in calls]
        messages[1]["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": "{}"}}
            for call in calls
        ]
        answer = await openai.chat.completions.create(model="m", messages=messages, tools=tools)
        assert "noon; noon" in (answer.choices[0].message.content or "")
        with pytest.raises(BadRequestError, match="must be followed by tool messages"):
            await openai.chat.completions.create(model="m", messages=messages[:2], tools=tools)
