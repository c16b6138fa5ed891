"""A conversation becomes one prompt: as lines, as its last question, or by a template that cannot reach out."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import InvalidRequest
from proxy.providers import providers, traits
from proxy.providers.seam import Target

USER: Json = {"role": "user", "content": "Hello"}
TALK: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": "much?"}]},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Why?"},
]


def filled(request: Any, prompt: str = "simple", *, messages: list[Json] | None = None) -> Any:
    """The JSON that goes out for a template."""
    settings = {"mode": "custom", "request": request, "prompt": prompt}
    upstream = {"provider": "bentoml", "base_url": "http://upstream.example", "settings": settings}
    config = build(Document("octet.yaml", {"upstreams": {"up": upstream}}), traits())
    body = json.dumps({"model": "m", "messages": messages or [USER]}).encode()
    call = parse(body, caller=Caller(), headers={}, call_id="1", received_at=1.0)
    target = Target("up", config.upstreams["up"], "m")
    return json.loads(providers()["bentoml"].build_request(call, target).body)


@pytest.mark.parametrize(
    ("prompt", "messages", "text"),
    [
        pytest.param("simple", [USER], "Hello", id="a lone question"),
        pytest.param("simple", TALK[:1], "System: Be brief.\nAssistant:", id="a lone message of another role"),
        pytest.param(
            "simple",
            TALK,
            "System: Be brief.\nSystem: Be kind.\nUser: How\nmuch?\nAssistant: 42\nUser: Why?\nAssistant:",
            id="a conversation",
        ),
        pytest.param("last_user", TALK, "Why?", id="the last question"),
        pytest.param("last_user", TALK[:4], "How\nmuch?", id="the last question before an answer"),
        pytest.param("last_user", TALK[:1], "", id="no question"),
        pytest.param("{{ messages[-1].content }}|{{ messages | length }}", TALK, "Why?|5", id="a template"),
        pytest.param(
            "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}{{ '<a>' if add_generation_prompt }}",
            TALK[1:4],
            "<system>Be kind.<user>How\nmuch?<assistant>42<a>",
            id="a chat template",
        ),
        pytest.param("{{ bos_token }}{{ tools }}{{ messages[0].content }}", [USER], "NoneHello", id="no tools"),
    ],
)
def test_prompts(prompt: str, messages: list[Json], text: str) -> None:
    """The three ways to make a prompt of messages; developers are the system, parts are lines."""
    assert filled("{prompt}", prompt, messages=messages) == text


def test_the_systems_texts_have_a_name() -> None:
    """`system` is all that the system and the developer say."""
    assert filled("{system}", messages=TALK) == "Be brief.\nBe kind."


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages[0]['__class__'].x }}{{ messages[0].keys.__self__.x }}",
        "{{ raise_exception.__globals__['x'] }}",
        "{{ self.__init__.__globals__.__builtins__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
    ],
)
def test_a_template_cannot_reach_out(prompt: str) -> None:
    """A template sees what it is given and no more: not Python; nor does it change what it sees."""
    with pytest.raises(InvalidRequest, match="do not fit the prompt template"):
        filled("{prompt}", prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ raise_exception('no system') }}",
        "{{ messages[7].content }}",
        "{{ nobody.x }}",
        "{% for tool in tools %}x{% endfor %}",
        "{{ messages[0].content / 2 }}",
        "{{ 1 / (messages | length - 1) }}",
        "{% for number in range(999999999) %}{% endfor %}",
        "{% include 'x' %}",
    ],
)
def test_messages_that_a_template_cannot_take(prompt: str) -> None:
    """A template may refuse a conversation, or not fit it: the caller is told, by the field."""
    with pytest.raises(InvalidRequest) as caught:
        filled("{prompt}", prompt)
    assert (caught.value.param, caught.value.status) == ("messages", 400)
