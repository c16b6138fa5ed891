"""What a stream amounts to is what the same answer says when it comes whole, however the network cuts it."""

import itertools
import json
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.openai_format.chunks import collect
from proxy.providers import providers, traits
from proxy.providers.relay import open_parser, read_whole
from proxy.providers.seam import Provider, Target
from proxy.simulator import Behaviour
from proxy.simulator.answers import compose_all
from proxy.simulator.dialect import Page, spell
from proxy.simulator.oddities import bend
from proxy.simulator.server import DIALECTS

MODELS = {"anthropic": "claude-sonnet-4-5", "tgi": "tgi", "rayserve": "qwen2.5-7b"}
NAMES = ("weather", "clock", "search")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"q": {}}}}}
    for name in NAMES
]
SSE_QUIRKS = ("repeat_role", "repeat_id", "no_index", "arguments_object", "stop_for_tools", "empty_finish")
MORE_QUIRKS = ("usage_on_finish", "explicit_nulls", "filter_preamble", "duplicate_done", "after_done", "retry_lines")
ENDINGS = ("no_final_blank", "bom")
IMITATORS = ("openai", "vllm", "huggingface", "rayserve", "bentoml")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | texts, st.lists, max_leaves=4)
calls = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(NAMES), "arguments": st.dictionaries(texts, values, max_size=2)}),
    min_size=1,
    max_size=3,
)
cuts = st.lists(st.floats(0, 1), max_size=12)
quirks = st.lists(st.sampled_from((*SSE_QUIRKS, *MORE_QUIRKS, *ENDINGS)), unique=True, max_size=3)


def asked(dialect: str, *, stream: bool, tools: bool) -> Call:
    body: Json = {
        "model": MODELS.get(dialect, "m"),
        "messages": [{"role": "user", "content": "Go on."}],
        **({"tools": TOOLS} if tools else {}),
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
    }
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="x", received_at=1795000000.0)


def target(dialect: str, model: str) -> Target:
    wire = {} if dialect in ("anthropic", "ollama", "tgi") else {"wire": "normalise"}
    upstream = {"provider": dialect, "base_url": "http://upstream.example", **wire}
    config = build(Document("property", {"upstreams": {dialect: upstream}}), traits())
    return Target(dialect, config.upstreams[dialect], model)


def simulated(dialect: str, call: Call, behaviour: Behaviour) -> tuple[Provider, Target, dict[str, str], bytes]:
    """What the simulated upstream sends for the request that the provider builds."""
    provider, there = providers()[dialect], target(dialect, call.model)
    request = provider.build_request(call, there)
    path = urlsplit(request.url).path
    operation = DIALECTS[dialect].operation(path) or DIALECTS[dialect].operation("/v1" + path)
    assert operation is not None
    question = operation.read({"content-type": "application/json", **dict(request.headers)}, request.body)
    answers = compose_all(question, behaviour, seed=1)
    if not question.stream:
        whole = operation.whole(question, answers, behaviour)
        body = whole.body if isinstance(whole, Page) else whole
        return provider, there, {"content-type": "application/json"}, body
    frames = bend(operation.frames(question, answers, behaviour), behaviour)
    pieces = [spell(frame, operation.framing, behaviour, first=not number) for number, frame in enumerate(frames)]
    kind = "text/event-stream" if operation.framing == "sse" else "application/x-ndjson"
    return provider, there, {"content-type": kind}, b"".join(pieces)


def streamed(dialect: str, behaviour: Behaviour, places: list[float], *, tools: bool) -> Json:
    call = asked(dialect, stream=True, tools=tools)
    provider, there, headers, body = simulated(dialect, call, behaviour)
    parser = open_parser(provider, call, there, headers)
    edges = sorted({0, len(body), *(int(place * len(body)) for place in places)})
    chunks = [chunk for start, end in itertools.pairwise(edges) for chunk in parser.feed(body[start:end])]
    return collect([*chunks, *parser.finish()])


def whole(dialect: str, behaviour: Behaviour, *, tools: bool) -> Json:
    call = asked(dialect, stream=False, tools=tools)
    provider, there, headers, body = simulated(dialect, call, behaviour)
    return read_whole(provider, call, there, headers, body)


_ELSEWHERE = ("tool_calls", "thinking_blocks", "annotations")  # the last is an empty list of whole answers alone


def gist(completion: Json) -> Any:
    """All but ids and time; arguments as values, since their spelling may differ."""
    return [
        (
            {name: value for name, value in choice["message"].items() if name not in _ELSEWHERE},
            [
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in choice["message"].get("tool_calls", ())
            ],
            choice["finish_reason"],
        )
        for choice in completion["choices"]
    ], completion.get("usage")


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=60)
@given(text=texts, reasoning=texts | st.none(), made=calls | st.none(), places=cuts, odd=quirks, crlf=st.booleans())
def test_streamed_equals_whole(
    dialect: str, text: str, reasoning: str | None, made: Any, places: list[float], odd: list[str], crlf: bool
) -> None:
    """Message, tool calls, finish reason and usage are the same, whatever the framing and its oddities."""
    odd = odd if dialect in IMITATORS else [name for name in odd if name in ENDINGS]
    if dialect == "openai":
        odd = [name for name in odd if name != "stop_for_tools"]  # OpenAI says so itself, and is not mended
    if odd.count("no_index") and made and len(made) > 1:
        odd = [name for name in odd if name != "repeat_id"]  # nothing would tell the calls apart
    saying = partial(Behaviour, text=text, reasoning=reasoning or None, tool_calls=made)
    in_pieces = saying(quirks=tuple(odd), crlf=crlf, no_space=crlf, comments=crlf)
    expected = whole(dialect, saying(), tools=bool(made))
    assert gist(streamed(dialect, in_pieces, places, tools=bool(made))) == gist(expected)
