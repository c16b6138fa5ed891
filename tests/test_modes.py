"""The other ways of each upstream, over real sockets: native APIs, deployments of one's own, other endpoints."""

import base64
import json
import struct
from typing import Any

import openai
import pytest

from proxy.call import Json
from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start, last_call
from tests.strict import check_chunks, check_completion, read_events

TEXT = "Grüße aus Bergen 🌊, bis bald"

# name: dialect of the simulator, path below it, the upstream's own keys
MODES: dict[str, tuple[str, str, Json]] = {
    "hf-inference": ("huggingface", "/hf-inference", {"provider": "huggingface", "settings": {"mode": "hf-inference"}}),
    "endpoint": (
        "huggingface",
        "/endpoint",
        {"provider": "huggingface", "settings": {"mode": "endpoint", "engine": "vllm"}},
    ),
    "endpoint-tgi": ("tgi", "", {"provider": "huggingface", "settings": {"mode": "endpoint", "engine": "tgi"}}),
    "generate": ("tgi", "", {"provider": "tgi", "settings": {"api": "generate"}}),
    "ray": ("rayserve", "", {"provider": "rayserve", "settings": {"mode": "custom"}}),
    "ray-list": ("rayserve", "", {"provider": "rayserve", "settings": {"mode": "custom", "path": "/list"}}),
    "ray-text": ("rayserve", "", {"provider": "rayserve", "settings": {"mode": "custom", "path": "/text"}}),
    "ray-ndjson": ("rayserve", "", {"provider": "rayserve", "settings": {"mode": "custom", "path": "/ndjson"}}),
    "ray-cumulative": (
        "rayserve",
        "",
        {"provider": "rayserve", "settings": {"mode": "custom", "path": "/cumulative", "stream": {"cumulative": True}}},
    ),
    "bento": ("bentoml", "", {"provider": "bentoml", "settings": {"mode": "custom"}}),
    "bento-sse": ("bentoml", "", {"provider": "bentoml", "settings": {"mode": "custom", "path": "/generate_sse"}}),
    "bento-items": (
        "bentoml",
        "",
        {
            "provider": "bentoml",
            "settings": {"mode": "custom", "path": "/generate_items", "stream": {"framing": "json"}},
        },
    ),
    "bento-chat": (
        "bentoml",
        "",
        {
            "provider": "bentoml",
            "settings": {
                "mode": "custom",
                "path": "/chat",
                "request": {"messages": "{messages}", "max_tokens": "{max_tokens}"},
            },
        },
    ),
    "vllm-normalised": ("vllm", "", {"provider": "vllm", "wire": "normalise"}),
    "ray-normalised": ("rayserve", "", {"provider": "rayserve", "wire": "normalise"}),
    "bento-exact": ("bentoml", "", {"provider": "bentoml", "wire": "exact"}),
}
each_mode = pytest.mark.parametrize("mode", MODES)
NEVER_WHOLE = {"bento", "bento-sse", "bento-items", "ray-ndjson", "ray-cumulative"}  # their endpoints only stream


@pytest.fixture
async def modes(start: Start, simulator: Simulator) -> Sidecar:
    """A sidecar with an upstream for each mode."""
    upstreams = {
        name: {"base_url": f"{simulator.url}/{dialect}{path}", **keys} for name, (dialect, path, keys) in MODES.items()
    }
    return await start(upstreams=upstreams)


async def said(sidecar: Sidecar, mode: str, **fields: Any) -> Json:
    response = await sidecar.chat(f"{mode}/org/model", **fields)
    assert response.status == 200, await response.text()
    whole: Json = await response.json()
    return whole


async def streamed(sidecar: Sidecar, mode: str, **fields: Any) -> list[Json]:
    response = await sidecar.chat(f"{mode}/org/model", stream=True, **fields)
    assert response.status == 200, await response.text()
    return read_events(await response.read())


def text_of(chunks: list[Json]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@each_mode
async def test_a_text_whole_and_streamed(modes: Sidecar, simulator: Simulator, mode: str) -> None:
    """Every mode gives the same text, of the official types."""
    simulator.always(MODES[mode][0], Behaviour(text=TEXT))
    if mode not in NEVER_WHOLE:
        whole = await said(modes, mode)
        assert whole["choices"][0]["message"]["content"] == TEXT
        if MODES[mode][2].get("wire") != "exact":
            check_completion(whole)
    chunks = await streamed(modes, mode)
    assert text_of(chunks) == TEXT
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    if MODES[mode][2].get("wire") != "exact":
        check_chunks(chunks, usage=False)


@pytest.mark.parametrize("mode", ["endpoint-tgi", "generate", "ray", "ray-list", "ray-text", "bento-chat"])
async def test_stop_strings_are_cut(modes: Sidecar, simulator: Simulator, mode: str) -> None:
    """Where the upstream echoes a stop string or knows none, the text ends before it all the same."""
    simulator.always(MODES[mode][0], Behaviour(text="one two, three two"))
    assert (await said(modes, mode, stop="two"))["choices"][0]["message"]["content"] == "one "
    assert text_of(await streamed(modes, mode, stop=["nope", "two"])) == "one "


@pytest.mark.parametrize("mode", ["endpoint-tgi", "generate", "ray", "hf-inference"])
async def test_several_choices_are_asked_one_by_one(modes: Sidecar, simulator: Simulator, mode: str) -> None:
    """Vector 44: n requests at once, indices from 0, the prompt counted once; one attempt."""
    dialect = MODES[mode][0]
    simulator.always(dialect, Behaviour(text="Hi"))
    before = simulator.report.dialects[dialect].calls
    whole = await said(modes, mode, n=3)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    chunks = await streamed(modes, mode, n=3, stream_options={"include_usage": True})
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1, 2}
    assert simulator.report.dialects[dialect].calls - before == 6
    if whole.get("usage"):
        one = (await said(modes, mode))["usage"]
        assert whole["usage"]["prompt_tokens"] == one["prompt_tokens"]
        assert whole["usage"]["completion_tokens"] == 3 * one["completion_tokens"]
        assert chunks[-1]["usage"] == whole["usage"]
    lines = await modes.lines.wait_for(2)
    assert [line["attempts"] for line in lines[:2]] == [1, 1]


async def test_too_many_choices_are_refused(modes: Sidecar) -> None:
    """`max_choices` bounds what one call may cost."""
    response = await modes.chat("generate/m", n=9)
    assert response.status == 400
    assert (await response.json())["error"]["param"] == "n"


@pytest.mark.parametrize("fault", [{"error_after": 1}, {"cut": 1}, {"stall": 1}])
async def test_a_branch_that_breaks_breaks_the_call(start: Start, simulator: Simulator, fault: Any) -> None:
    """One of three streams fails: the caller is told, and nothing of the others is left behind."""
    sidecar = await start(upstreams={"anthropic": {"timeouts": {"idle_seconds": 0.2}}})
    simulator.script("anthropic", Behaviour(text="Hi there"), Behaviour(text="Hi there", **fault), Behaviour())
    response = await sidecar.chat("claude-haiku-4-5", n=3, stream=True)
    body = await response.read()
    assert b'"error"' in body
    assert b"[DONE]" not in body
    await simulator.report.wait_for(lambda report: report.open_calls == 0)


async def test_a_branch_that_is_refused_refuses_the_call(sidecar: Sidecar, simulator: Simulator) -> None:
    """Before content, the failure of one request is that of the call."""
    simulator.script("anthropic", Behaviour(), Behaviour(status=429, retry_after=3), Behaviour())
    response = await sidecar.chat("claude-haiku-4-5", n=3)
    assert response.status == 429
    assert response.headers["retry-after"] == "3"
    await simulator.report.wait_for(lambda report: report.open_calls == 0)


async def test_functions_are_answered_in_their_own_way(sidecar: Sidecar, simulator: Simulator) -> None:
    """The deprecated pair works where only tools exist, whole and streamed."""
    functions: Any = [{"name": "clock", "parameters": {"type": "object", "properties": {"tz": {"type": "string"}}}}]
    messages: Any = [{"role": "user", "content": "Ask the clock."}]
    behaviour = Behaviour(tool_calls=[{"name": "clock", "arguments": {"tz": "UTC"}}])
    for dialect, model in (("anthropic", "claude-haiku-4-5"), ("tgi", "tgi/m"), ("ollama", "qwen3")):
        simulator.script(dialect, behaviour, behaviour)
        client = sidecar.openai()
        whole = await client.chat.completions.create(model=model, messages=messages, functions=functions)
        call = whole.choices[0].message.function_call
        assert call is not None
        assert (call.name, json.loads(call.arguments)) == ("clock", {"tz": "UTC"})
        assert whole.choices[0].finish_reason == "function_call"
        pieces: list[Any] = []
        async for chunk in await client.chat.completions.create(
            model=model, messages=messages, functions=functions, stream=True
        ):
            pieces += [choice.delta.function_call for choice in chunk.choices if choice.delta.function_call]
        assert pieces[0].name == "clock"
        assert json.loads("".join(piece.arguments or "" for piece in pieces)) == {"tz": "UTC"}


async def test_models_families_refusals_are_cured(sidecar: Sidecar, simulator: Simulator) -> None:
    """What a model family refuses is left out and named, and the call goes once more; it stays one attempt."""
    response = await sidecar.chat("openai/o3-mini", max_tokens=50)
    assert response.status == 200
    assert response.headers["x-octet-attempts"] == "1"
    sent = json.loads(last_call(simulator).body)
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 50)


@pytest.mark.parametrize("stream", [False, True])
async def test_parameters_that_a_family_refuses(start: Start, simulator: Simulator, stream: bool) -> None:
    """A refusal is the caller's to know, unless YAML lists the parameter: then it is left out and named."""
    base_url = f"{simulator.url}/openai/v1"
    listed = {"settings": {"retry_without": {"o[0-9]*": ["temperature", "top_p"]}}}
    sidecar = await start(upstreams={"lenient": {"provider": "openai", "base_url": base_url, **listed}})
    refused = await sidecar.chat("openai/o3-mini", temperature=0.5, top_p=0.5, stream=stream)
    assert refused.status == 400
    assert (await refused.json())["error"]["param"] == "temperature"
    response = await sidecar.chat("lenient/o3-mini", temperature=0.5, top_p=0.5, seed=1, stream=stream)
    assert response.status == 200
    assert response.headers["x-octet-dropped"] == "temperature, top_p"
    await response.read()
    sent = json.loads(last_call(simulator).body)
    assert sent["seed"] == 1
    assert not {"temperature", "top_p"} & sent.keys()


@pytest.mark.parametrize("model", ["openai/text-embedding-3-small", "vllm/e5", "ollama/nomic", "hf-inference/org/e5"])
async def test_embeddings(modes: Sidecar, model: str) -> None:
    """Floats and base64, as asked for, hold the same vectors; the SDK, which asks for base64, reads both."""
    client = modes.openai()
    plain = await client.embeddings.create(model=model, input=["eins", "zwei ☀"], encoding_format="float")
    packed = await client.embeddings.create(model=model, input=["eins", "zwei ☀"])
    assert plain.model == packed.model == model
    assert [item.index for item in plain.data] == [0, 1]
    assert [item.embedding for item in packed.data] == [pytest.approx(item.embedding, abs=1e-6) for item in plain.data]
    raw = await modes.http.post(
        f"{modes.url}/v1/embeddings", json={"model": model, "input": "eins", "encoding_format": "base64"}
    )
    (item,) = (await raw.json())["data"]
    vector = base64.b64decode(item["embedding"])
    assert list(struct.unpack(f"<{len(vector) // 4}f", vector)) == pytest.approx(plain.data[0].embedding, abs=1e-6)


@pytest.mark.parametrize("model", ["openai/gpt-3.5-turbo-instruct", "vllm/m", "bentoml/m", "ollama/qwen3", "tgi/m"])
async def test_completions(modes: Sidecar, model: str) -> None:
    """The older endpoint passes, whole and streamed, and the stream ends as it should."""
    client = modes.openai()
    whole = await client.completions.create(model=model, prompt="Once", stop="###", max_tokens=20)
    assert whole.choices[0].text
    assert whole.model == model
    text = ""
    reasons: list[Any] = []
    async for chunk in await client.completions.create(
        model=model, prompt="Once", stop="###", max_tokens=20, stream=True
    ):
        assert chunk.model == model
        for choice in chunk.choices:
            text += choice.text
            reasons.append(choice.finish_reason)
    assert text == whole.choices[0].text
    assert len(list(filter(None, reasons))) == 1
    lines = await modes.lines.wait_for(2)
    assert [line["outcome"] for line in lines] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("claude-haiku-4-5", "completions"),
        ("claude-haiku-4-5", "embeddings"),
        ("tgi/m", "embeddings"),
        ("ray/m", "completions"),
        ("huggingface/m", "embeddings"),
    ],
)
async def test_endpoints_that_an_upstream_lacks(modes: Sidecar, model: str, path: str) -> None:
    """A clear 404 in OpenAI's shape."""
    client: Any = modes.openai()
    wanted = {"prompt": "x"} if path == "completions" else {"input": "x"}
    with pytest.raises(openai.NotFoundError) as caught:
        await getattr(client, path).create(model=model, **wanted)
    assert caught.value.code == "unsupported_endpoint"
    assert path in str(caught.value)


async def test_a_callers_mistakes_at_the_other_endpoints(sidecar: Sidecar) -> None:
    """What is missing is named."""
    for path, param in (("completions", "prompt"), ("embeddings", "input")):
        response = await sidecar.http.post(f"{sidecar.url}/v1/{path}", json={"model": "gpt-4o-mini"})
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param
