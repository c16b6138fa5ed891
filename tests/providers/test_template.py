"""A deployment gets the JSON that YAML describes, filled with what the caller asked."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config import ConfigError
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import NotFound, UnsupportedParameter
from proxy.providers import providers, traits
from proxy.providers.seam import Target, UpstreamRequest

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def target(provider: str = "bentoml", **custom: Any) -> Target:
    """A deployment with a shape of its own."""
    upstream = {
        "provider": provider,
        "base_url": "http://upstream.example/app/",
        "settings": {"mode": "custom", **custom},
    }
    return Target(
        "up", build(Document("octet.yaml", {"upstreams": {"up": upstream}}), traits()).upstreams["up"], "served"
    )


def call(**fields: Any) -> Call:
    body = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    return parse(body, caller=Caller(), headers={}, call_id="1", received_at=1.0)


def sent(where: Target, **fields: Any) -> UpstreamRequest:
    return providers()[where.upstream.provider].build_request(call(**fields), where)


def filled(request: Any, prompt: str = "simple", **fields: Any) -> Any:
    """The JSON that goes out for a template."""
    return json.loads(sent(target(request=request, prompt=prompt), **fields).body)


@pytest.mark.parametrize(
    ("provider", "url", "body"),
    [
        ("bentoml", "http://upstream.example/app/generate", {"prompt": "Hello", "max_tokens": 5}),
        (
            "rayserve",
            "http://upstream.example/app",
            {"prompt": "Hello", "max_tokens": 5, "temperature": 0.5, "stream": False},
        ),
    ],
)
def test_the_defaults(provider: str, url: str, body: Json) -> None:
    """Without a shape in YAML each framework's usual endpoint is called as usual."""
    request = sent(target(provider), max_tokens=5, temperature=0.5)
    assert (request.url, json.loads(request.body), request.copies) == (url, body, 1)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        pytest.param("{temperature}", 0.5, id="a number"),
        pytest.param("{max_tokens}", 7, id="an integer"),
        pytest.param("{max_completion_tokens}", 7, id="the limit by its other name"),
        pytest.param("{stream}", False, id="a boolean"),
        pytest.param("{model}", "served", id="the model, as it is called there"),
        pytest.param("{stop}", ["a", "b"], id="a list"),
        pytest.param("{metadata}", {"a": None}, id="an object"),
        pytest.param("{messages}", [USER], id="the messages"),
        pytest.param("{last_user}", "Hello", id="the last question"),
        pytest.param("say {prompt}, {temperature} times", "say Hello, 0.5 times", id="within a text"),
        pytest.param("stream={stream}, {metadata}!", 'stream=false, {"a":null}!', id="JSON within a text"),
        pytest.param("{prompt}{prompt}", "HelloHello", id="twice"),
        pytest.param("{{prompt}}", "{prompt}", id="braces"),
        pytest.param("{{{prompt}}}", "{Hello}", id="braces around a name"),
        pytest.param("{ prompt }", "{ prompt }", id="no name"),
        pytest.param("{}", "{}", id="nothing in braces"),
        pytest.param("[{seed}]", "[]", id="absent within a text"),
        pytest.param("", "", id="an empty text"),
        pytest.param(5, 5, id="no text at all"),
        pytest.param([True, None, 1.5], [True, None, 1.5], id="constants"),
        pytest.param(["{seed}", "{model}", ["{seed}"]], ["served", []], id="absent in a list"),
        pytest.param({"a": {"b": "{model}", "c": "{seed}"}}, {"a": {"b": "served"}}, id="absent in an object"),
    ],
)
def test_a_name_stands_for_its_value(template: Any, value: Any) -> None:
    """A name alone keeps its value's type, within a text it is written out, and without a value it is left out."""
    fields: Json = {"temperature": 0.5, "max_tokens": 7, "stop": ["a", "b"], "metadata": {"a": None}, "seed": None}
    assert filled({"x": template}, **fields) == {"x": value}


def test_what_is_absent_is_left_out() -> None:
    """Nothing stands in for what the caller did not say."""
    names = ("max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice", "system", "seed", "user")
    assert filled({name: f"{{{name}}}" for name in names}) == {}


@pytest.mark.parametrize(("template", "body"), [("{prompt}", "Hello"), ("{seed}", {}), (["{prompt}"], ["Hello"])])
def test_a_request_need_be_no_object(template: Any, body: Any) -> None:
    """An endpoint may take a bare string or a list; with nothing to say it gets an empty object."""
    assert filled(template) == body


def test_texts_of_callers_are_not_templates() -> None:
    """Braces in a message are a message's."""
    messages = [{"role": "user", "content": "{model} {{x}} {{ 7 * 7 }}"}]
    for prompt in ("simple", "last_user", "{{ messages[0].content }}"):
        assert filled({"p": "{prompt}!"}, prompt, messages=messages) == {"p": "{model} {{x}} {{ 7 * 7 }}!"}


def test_the_newer_limit_wins() -> None:
    """Both names stand for the one limit that holds."""
    template = {"a": "{max_tokens}", "b": "{max_completion_tokens}"}
    assert filled(template, max_tokens=5, max_completion_tokens=4) == {"a": 4, "b": 4}


def test_tools_reach_a_template_that_names_them() -> None:
    """They come as OpenAI spells them, filtered by the choice."""
    template = {"tools": "{tools}", "choice": "{tool_choice}", "messages": "{messages}"}
    history = [
        USER,
        {"role": "assistant", "tool_calls": [{"id": "a", **TOOL, "function": {"name": "f", "arguments": "{}"}}]},
    ]
    answered = [*history, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    body = filled(template, tools=[TOOL], tool_choice=TOOL, messages=answered)
    assert body == {
        "tools": [TOOL],
        "choice": {"type": "function", "function": {"name": "f"}},
        "messages": answered,
    }


@pytest.mark.parametrize("template", [{"prompt": "{prompt}"}, {"prompt": "{prompt}", "tools": "{tools}"}])
@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}])
def test_tools_that_may_not_be_called_are_left_out(template: Json, fields: Json) -> None:
    """The choice of no tool asks for nothing: neither tools nor choice are refused or named as lost."""
    request = sent(target(request=template), tool_choice="none", **fields)
    assert (json.loads(request.body), request.dropped) == ({"prompt": "Hello"}, ())


def test_images_reach_a_template_that_names_messages() -> None:
    """Messages are carried with all their parts."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE], "name": "Ada"}]
    assert filled({"m": "{messages}"}, messages=messages) == {"m": messages}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ({"n": 9}, "n"),
    ],
)
def test_what_a_template_does_not_name_is_refused(fields: Json, param: str) -> None:
    """What would change the meaning of the answer is not left out in silence."""
    with pytest.raises(UnsupportedParameter) as caught:
        filled({"prompt": "{prompt}"}, **fields)
    assert caught.value.param == param


def test_what_only_tunes_is_dropped_by_name() -> None:
    """What a template does not name, and the answer can do without, is named; stops and n are ours."""
    fields = {"temperature": 1, "seed": 1, "max_tokens": 5, "user": "u", "stop": "a", "n": 3, "top_k": 1}
    request = sent(target(request={"prompt": "{prompt}", "seed": "{seed}"}), **fields)
    assert sorted(request.dropped) == ["max_tokens", "temperature", "top_k", "user"]
    assert (json.loads(request.body), request.copies) == ({"prompt": "Hello", "seed": 1}, 3)


@pytest.mark.parametrize(
    ("custom", "place"),
    [
        ({"prompt": "{{ messages"}, "prompt"),
        ({"prompt": "{% for m in messages %}"}, "prompt"),
        ({"prompt": "{% nonsense %}"}, "prompt"),
        ({"prompt": "smiple"}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"request": {"a": [{"b": "{promt}"}]}}, "request"),
        ({"request": "{top_k}"}, "request"),
        *(({"request": {"a": name}}, "request") for name in ("{functions}", "{function_call}", "{n}")),
        ({"path": "generate"}, "path"),
        ({"answer": {"text": []}}, "answer.text"),
        ({"answer": {"txt": ["a"]}}, "answer.txt"),
        ({"stream": {"framing": "xml"}}, "stream.framing"),
        ({"stream": {"cumulative": "yes"}}, "stream.cumulative"),
    ],
)
def test_a_wrong_shape_is_found_at_start(custom: Json, place: str) -> None:
    """Syntax errors of templates, unknown names and misspelt keys are mistakes of the configuration, at their place."""
    with pytest.raises(ConfigError) as caught:
        target(**custom)
    assert f"upstreams.up.settings.{place}" in str(caught.value)


@pytest.mark.parametrize("operation", ["completions", "embeddings"])
def test_a_shape_is_for_chat(operation: Any) -> None:
    """A deployment with a shape of its own serves nothing else."""
    body = json.dumps({"model": "m", "prompt": "Hello", "input": "Hello"}).encode()
    other = parse(body, operation=operation, caller=Caller(), headers={}, call_id="1", received_at=1.0)
    with pytest.raises(NotFound) as caught:
        providers()["bentoml"].build_request(other, target())
    assert caught.value.code == "unsupported_endpoint"


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://ray:8000", "/", "http://ray:8000/"),
        ("http://ray:8000/summarize", "/", "http://ray:8000/summarize"),
        ("http://ray:8000/app/", "/summarize", "http://ray:8000/app/summarize"),
    ],
)
def test_the_address(base_url: str, path: str, url: str) -> None:
    """A base_url with a path is the deployment's whole address, unless the settings name a path below it."""
    tree = {
        "upstreams": {
            "ray": {"provider": "rayserve", "base_url": base_url, "settings": {"mode": "custom", "path": path}}
        }
    }
    config = build(Document("address", tree), traits())
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
    call = parse(body, caller=Caller(), headers={}, call_id="x", received_at=1.0)
    assert providers()["rayserve"].build_request(call, Target("ray", config.upstreams["ray"], "m")).url == url


def test_a_prompt_in_the_address() -> None:
    """Deployments that take it from the query get it there, encoded; what has nothing to stand for is left out."""
    settings = {"mode": "custom", "request": {}, "query": {"prompt": "{prompt}", "n": "{max_tokens}", "seed": "{seed}"}}
    tree = {"upstreams": {"ray": {"provider": "rayserve", "base_url": "http://ray:8000", "settings": settings}}}
    config = build(Document("query", tree), traits())
    body = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"H\xc3\xa9 & du?"}]}'
    call = parse(body, caller=Caller(), headers={}, call_id="x", received_at=1.0)
    request = providers()["rayserve"].build_request(call, Target("ray", config.upstreams["ray"], "m"))
    assert request.url == "http://ray:8000/?prompt=H%C3%A9+%26+du%3F&n=5"
    assert (request.body, request.dropped) == (b"{}", ())
