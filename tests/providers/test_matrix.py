"""Every parameter of OpenAI's at every upstream: passed, mapped, emulated, dropped and named, or refused."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import InvalidRequest, ProxyError, UnsupportedParameter
from proxy.openai_format.parameters import DROP, EMULATE, MAP, PARAMETERS, PASS, REJECT, Column
from proxy.providers import providers, traits
from proxy.providers.relay import open_relay, read_completion
from proxy.providers.seam import Target, UpstreamRequest

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
OTHER = {"type": "function", "function": {"name": "other"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def part(**content: Any) -> Json:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, content]}]}


def image(url: str) -> Json:
    return part(type="image_url", image_url={"url": url})


def choosing(choice: Any) -> Json:
    return {"tool_choice": choice, "tools": [TOOL, OTHER]}


# What asks for each parameter. The first field is the one that a refusal names.
TRIALS: dict[str, Json] = {
    "developer role": {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    "image data:": image(PIXEL),
    "image https:": image("https://pictures.example/cat.png"),
    "input_audio": part(type="input_audio", input_audio={"data": "UklGRg==", "format": "wav"}),
    "file": part(type="file", file={"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}),
    "custom tools": {"tools": [{"type": "custom", "custom": {"name": "shell"}}]},
    "tools": {"tools": [TOOL]},
    "tool_choice none": choosing("none"),
    "tool_choice required": choosing("required"),
    "tool_choice named": choosing({"type": "function", "function": {"name": "clock"}}),
    "tool_choice allowed_tools": choosing(
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}
    ),
    "parallel_tool_calls": {"parallel_tool_calls": False, "tools": [TOOL]},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "max_completion_tokens": {"max_completion_tokens": 50},
    "max_tokens": {"max_tokens": 50},
    "stop": {"stop": "END"},
    "seed": {"seed": 7},
    "n": {"n": 3},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"top_logprobs": 2, "logprobs": True},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "logit_bias": {"logit_bias": {"50256": -100}},
    "user": {"user": "ada"},
    "metadata": {"metadata": {"team": "search"}},
    "store": {"store": True},
    "include_usage": {"stream_options": {"include_usage": True}, "stream": True},
    "reasoning_effort": {"reasoning_effort": "high"},
    "verbosity": {"verbosity": "low"},
    "service_tier": {"service_tier": "auto"},
    "modalities with audio": {"modalities": ["text", "audio"]},
    "audio": {"audio": {"voice": "alloy", "format": "wav"}},
    "prediction": {"prediction": {"type": "content", "content": "Hi"}},
    "prompt_cache_*": {"prompt_cache_key": "k"},
    "moderation": {"moderation": {"mode": "auto"}},
    "web_search_options": {"web_search_options": {}},
    "functions": {"functions": [TOOL["function"]]},
}
# Which of the two tools go up, where a choice among them is emulated.
OFFERED = {
    "tool_choice none": [],
    "tool_choice required": ["clock", "other"],
    "tool_choice named": ["clock"],
    "tool_choice allowed_tools": ["clock"],
}
# Each column, and the upstream that has it.
UPSTREAMS: dict[str, Json] = {
    "openai": {"provider": "openai", "wire": "normalise"},
    "anthropic": {"provider": "anthropic"},
    "huggingface": {"provider": "huggingface"},
    "ollama": {"provider": "ollama", "settings": {"forced_tool_fallback": "auto_with_hint"}},
    "vllm": {"provider": "vllm", "wire": "normalise"},
    "tgi": {"provider": "tgi"},
    "tgi generate": {"provider": "tgi", "settings": {"api": "generate"}},
    "rayserve": {"provider": "rayserve", "wire": "normalise"},
    "rayserve custom": {
        "provider": "rayserve",
        "settings": {"mode": "custom", "request": {"p": "{prompt}", "limit": "{max_tokens}"}},
    },
    "bentoml": {"provider": "bentoml"},
    "bentoml custom": {"provider": "bentoml", "settings": {"mode": "custom"}},
}
COLUMNS: dict[str, Column] = {name: column for each in traits().values() for name, column in each.columns.items()}
MODELS = {"anthropic": "claude-haiku-4-5"}
each_cell = pytest.mark.parametrize(
    ("column", "row"), [(column, parameter.name) for column in COLUMNS for parameter in PARAMETERS]
)


def asked(column: str, **fields: Any) -> Call:
    body: Json = {"model": MODELS.get(column, "m"), "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="x", received_at=1795000000.0)


def target(column: str, call: Call) -> Target:
    upstream = {"base_url": "http://upstream.example", **UPSTREAMS[column]}
    config = build(Document("matrix", {"upstreams": {"there": upstream}}), traits())
    return Target("there", config.upstreams["there"], call.model)


def sent(column: str, **fields: Any) -> UpstreamRequest:
    call = asked(column, **fields)
    there = target(column, call)
    return providers()[there.upstream.provider].build_request(call, there)


def test_no_row_and_no_column_is_left_out() -> None:
    """Whoever adds a parameter or a dialect must say what becomes of it."""
    assert TRIALS.keys() == {parameter.name for parameter in PARAMETERS}
    assert UPSTREAMS.keys() == COLUMNS.keys()
    assert {each["provider"] for each in UPSTREAMS.values()} == set(providers())


@each_cell
def test_a_cell_tells_the_truth(column: str, row: str) -> None:
    """What the table says of a parameter is what happens to it."""
    trial, treatment = TRIALS[row], COLUMNS[column][row]
    if COLUMNS[column]["tools"] is REJECT and row == "parallel_tool_calls":
        trial = {"parallel_tool_calls": False}
    field, value = next(iter(trial.items()))
    if treatment is REJECT:
        with pytest.raises(UnsupportedParameter) as caught:
            sent(column, **trial)
        assert (caught.value.param or "").startswith(field)
        return
    request = sent(column, **trial)
    body = json.loads(request.body)
    dropped = {name for name in request.dropped if ":" not in name}  # not those of which a part was lost
    if treatment is DROP:
        assert field in dropped
        assert not isinstance(body, dict) or field not in body
        return
    assert field not in dropped
    if treatment is PASS:
        assert is_there(body, field, value, row)
    elif treatment is EMULATE:
        assert row != "n" or request.copies == value
        if row in OFFERED:
            assert [name for name in ("clock", "other") if f'"{name}"'.encode() in request.body] == OFFERED[row]
    else:
        plain = json.loads(sent(column, **{name: each for name, each in trial.items() if name != field}).body)
        assert treatment is MAP
        assert body != plain


def is_there(body: Json, field: str, value: Any, row: str) -> bool:
    """Whether the value went as it was; of messages, the part in question."""
    if row == "developer role":
        return bool(body["messages"][0]["role"] == "developer")
    if field == "messages":
        return bool(body["messages"][0]["content"][1] == value[0]["content"][1])
    if row == "include_usage":
        return bool(body["stream_options"]["include_usage"])
    return bool(body.get("parameters", body)[field] == value)


def test_an_unknown_field_is_dropped_and_named() -> None:
    """A field that OpenAI does not have goes only where the dialect knows it."""
    for column in COLUMNS:
        request = sent(column, never_heard_of=1)
        assert request.dropped == ("never_heard_of",)
        assert b"never_heard_of" not in request.body


def test_extras_pass_and_the_restricted_are_refused() -> None:
    """What a dialect adds to OpenAI's may be used, but for what touches other callers."""
    for name, column in COLUMNS.items():
        for extra in column.extras:
            assert not sent(name, **{extra: {"a": 1} if extra == "structured_outputs" else 1}).dropped
        for field in column.restricted:
            with pytest.raises(UnsupportedParameter, match=field):
                sent(name, **{field: 1})


@pytest.mark.parametrize("column", COLUMNS)
def test_null_is_absent_everywhere(column: str) -> None:
    """Vector 46: an explicit null for every optional field changes nothing."""
    nulls = {name: None for parameter in PARAMETERS for name in parameter.fields}
    assert sent(column, **nulls) == sent(column)


@pytest.mark.parametrize("column", COLUMNS)
def test_one_limit_is_sent(column: str) -> None:
    """Vector 42: of two limits of tokens, the newer counts and is the only one."""
    request = sent(column, max_tokens=50, max_completion_tokens=40)
    assert request.body.count(b"50") == 0
    assert request.body.count(b"40") == 1


WRONG_BODIES = {
    "an HTML page": ("text/html", b"<html><title>Sign in</title></html>"),
    "nothing": ("application/json", b""),
    "half a JSON": ("application/json", b'{"choices": [{"mess'),
    "another JSON": ("application/json", b'{"status": "fine"}'),
    "a list": ("application/json", b"[]"),
    "a number": ("application/json", b"7"),
    "bytes": ("application/octet-stream", b"\xff\xfe\x00"),
    "an error": ("application/json", b'{"error": {"message": "no", "type": "server_error"}}'),
    "an error as text": ("application/json", b'{"error": "no"}'),
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_nonsense_is_never_an_answer(column: str, wrong: str) -> None:
    """Whatever comes with status 200 instead of an answer is a failure of the upstream, streamed or not."""
    kind, body = WRONG_BODIES[wrong]
    for stream in (False,) if wrong == "bytes" and "custom" in column else (False, True):  # raw bytes are their text
        call = asked(column, stream=stream)
        there = target(column, call)
        provider = providers()[there.upstream.provider]
        assert fails(provider, call, there, {"content-type": kind}, body), f"stream: {stream}"


def fails(provider: Any, call: Call, there: Target, headers: dict[str, str], body: bytes) -> bool:
    try:
        if not call.stream:
            read_completion(provider, call, there, headers, body)
            return False
        relay = open_relay(provider, call, there, headers)
    except ProxyError:
        return True
    relay.feed(body)
    if relay.failure is None:
        relay.finish()
    return relay.failure is not None


@pytest.mark.parametrize("model", ["../../v1/x", "a/../b", "/etc", "a//b", ".", "a/./b"])
def test_a_model_in_a_path_leads_nowhere_else(model: str) -> None:
    """hf-inference has the model's name in its path: it cannot point at another one."""
    with pytest.raises(InvalidRequest) as caught:
        serverless(model)
    assert caught.value.param == "model"


def test_a_models_name_is_quoted() -> None:
    """Nor can it add a query or a fragment."""
    assert serverless("org/a?b=c#d e%2f").url == (
        "http://upstream.example/models/org/a%3Fb%3Dc%23d%20e%252f/v1/chat/completions"
    )


def serverless(model: str) -> UpstreamRequest:
    call = asked("huggingface", model=model)
    upstream = {
        "provider": "huggingface",
        "base_url": "http://upstream.example",
        "settings": {"mode": "hf-inference"},
    }
    config = build(Document("matrix", {"upstreams": {"there": upstream}}), traits())
    return providers()["huggingface"].build_request(call, Target("there", config.upstreams["there"], model))
