"""The tgi dialect answers raw prompts, natively and as legacy completions, and tells what it is."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Generate = Callable[..., Awaitable[aiohttp.ClientResponse]]
SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}


@pytest.fixture
def send(simulator: Simulator, client: aiohttp.ClientSession) -> Generate:
    """Post a body to a path."""

    async def post(path: str, body: dict[str, Any], behaviour: str = "") -> aiohttp.ClientResponse:
        url = f"{simulator.url}/tgi{path}"
        return await client.post(url, json=body, headers={"x-simulate": behaviour} if behaviour else {})

    return post


def asking(**parameters: Any) -> dict[str, Any]:
    return {"inputs": "Once upon a time", "parameters": parameters}


async def events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    blocks = (await response.text()).split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data:")) for block in blocks]


async def test_details_come_only_if_asked_for(send: Generate) -> None:
    """Without them there is nothing but the text."""
    body = await (await send("/generate", {"inputs": "Once"}, behaviour='text="upon a"')).json()
    assert body == {"generated_text": "upon a"}
    body = await (await send("/generate", asking(details=True, seed=7), behaviour='text="there was"')).json()
    details = body["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("eos_token", 3, 7)
    assert details["prefill"] == []
    assert [(token["text"], token["special"]) for token in details["tokens"]] == [
        ("there", False),
        (" was", False),
        ("</s>", True),
    ]


async def test_the_prompts_tokens_are_shown_if_asked_for(send: Generate) -> None:
    """As many as the header counts; the first has no probability."""
    response = await send("/generate", asking(details=True, decoder_input_details=True))
    prefill = (await response.json())["details"]["prefill"]
    assert [token["text"] for token in prefill] == ["Once", "upon", "a", "time"]
    assert [token["logprob"] is None for token in prefill] == [True, False, False, False]
    assert response.headers["x-prompt-tokens"] == "4"


async def test_a_stream_ends_with_the_whole_text(send: Generate) -> None:
    """The last event has it, with the details, and nothing says [DONE]."""
    response = await send("/generate_stream", asking(details=True), behaviour='text="there was"')
    assert response.content_type == "text/event-stream"
    seen = await events(response)
    assert [event["token"]["text"] for event in seen] == ["there", " was", "</s>"]
    assert [event["token"]["special"] for event in seen] == [False, False, True]
    assert [event["generated_text"] for event in seen] == [None, None, "there was"]
    assert [event["index"] for event in seen] == [1, 2, 3]
    assert [event["details"] for event in seen[:-1]] == [None, None]
    assert seen[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 3,
        "seed": None,
        "input_length": 4,
    }
    seen = await events(await send("/generate_stream", asking(), behaviour="text=there"))
    assert seen[-1]["details"] is None


async def test_a_stop_sequence_is_part_of_the_text(send: Generate) -> None:
    """In the whole text as in the tokens."""
    parameters = {"stop": ["###"], "details": True}
    body = await (await send("/generate", asking(**parameters), behaviour='text="a ### b"')).json()
    assert (body["generated_text"], body["details"]["finish_reason"]) == ("a ###", "stop_sequence")
    seen = await events(await send("/generate_stream", asking(**parameters), behaviour='text="a ### b"'))
    assert "".join(event["token"]["text"] for event in seen) == seen[-1]["generated_text"] == "a ###"
    assert not any(event["token"]["special"] for event in seen)


async def test_a_limit_ends_with_an_ordinary_token(send: Generate) -> None:
    """The last event has both a token and the whole text."""
    seen = await events(await send("/generate_stream", asking(max_new_tokens=2, details=True)))
    assert [event["token"]["special"] for event in seen] == [False, False]
    assert seen[-1]["details"]["finish_reason"] == "length"


async def test_top_tokens_and_full_text_come_if_asked_for(send: Generate) -> None:
    """The likeliest first; the prompt before the answer."""
    parameters = {"details": True, "top_n_tokens": 2, "return_full_text": True}
    body = await (await send("/generate", asking(**parameters), behaviour="text= there")).json()
    assert body["generated_text"] == "Once upon a timethere"
    assert [len(each) for each in body["details"]["top_tokens"]] == [2, 2]
    (event, _) = await events(await send("/generate_stream", asking(top_n_tokens=1), behaviour="text=there"))
    assert event["top_tokens"] == [event["token"]]


async def test_a_grammar_makes_json(send: Generate) -> None:
    """Given as a JSON schema."""
    body = await (await send("/generate", asking(grammar={"type": "json", "value": SCHEMA}))).json()
    assert list(json.loads(body["generated_text"])) == ["hour"]


async def test_the_root_takes_both_kinds(send: Generate) -> None:
    """Whole, its answer is an array; streamed, it is as any other."""
    (body,) = await (await send("/", asking(), behaviour="text=there")).json()
    assert body == {"generated_text": "there"}
    assert len(await events(await send("/", asking() | {"stream": True}, behaviour="text=there"))) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "missing field `inputs`"),
        ({"inputs": 5}, "inputs: invalid type: integer `5`, expected a string"),
        (asking(stop="x"), "parameters.stop: invalid type"),
        (asking(details=None), "parameters.details: invalid type: null, expected a boolean"),
        (asking(seed=-1), "parameters.seed: invalid value"),
        (asking(grammar={"type": "text"}), "parameters.grammar: unknown variant `text`"),
    ],
)
async def test_a_body_of_the_wrong_types_is_a_plain_422(send: Generate, body: dict[str, Any], words: str) -> None:
    """On both paths."""
    for path in ("/generate", "/generate_stream"):
        response = await send(path, body)
        assert (response.status, response.content_type) == (422, "text/plain")
        assert words in await response.text()


@pytest.mark.parametrize(
    ("parameters", "words", "streamed_only"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive", False),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0", False),
        ({"top_k": 0}, "`top_k` must be strictly positive", False),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be", False),
        ({"best_of": 2}, "`best_of` != 1 is not supported when streaming tokens", True),
        ({"decoder_input_details": True}, "`decoder_input_details` == true is not supported", True),
    ],
)
async def test_a_refusal_has_its_own_shape_in_a_stream(
    send: Generate, parameters: dict[str, Any], words: str, streamed_only: bool
) -> None:
    """The same object as without one, but on a 200 and without [DONE]."""
    response = await send("/generate", asking(**parameters))
    assert response.status == (200 if streamed_only else 422)
    response = await send("/generate_stream", asking(**parameters))
    assert response.status == 200
    (event,) = await events(response)
    assert event["error_type"] == "validation"
    assert event["error"].startswith(f"Input validation error: {words}")


async def test_a_scripted_failure_has_its_own_shape_too(send: Generate) -> None:
    """Before the first token and after it; an unknown adapter fails likewise."""
    for path in ("/generate", "/generate_stream"):
        response = await send(path, asking(), behaviour="status=429")
        expected = {"error": "Model is overloaded", "error_type": "overloaded"}
        if path == "/generate":
            assert (response.status, await response.json()) == (429, expected)
        else:
            assert (response.status, await events(response)) == (200, [expected])
    seen = await events(await send("/generate_stream", asking(), behaviour="error_after=1"))
    assert (len(seen), seen[1]["error_type"]) == (2, "generation")
    assert (await send("/generate", asking(adapter_id="odd"))).status == 424
    assert (await send("/generate", asking(adapter_id="support-adapter"))).status == 200


async def test_completions_answer_each_prompt(send: Generate) -> None:
    """One choice per prompt, in the legacy shape."""
    body = await (await send("/v1/completions", {"prompt": ["one", "two"], "max_tokens": 3})).json()
    assert (body["id"], body["object"]) == ("", "text_completion")
    assert [(choice["index"], choice["finish_reason"]) for choice in body["choices"]] == [(0, "length"), (1, "length")]
    assert body["usage"]["completion_tokens"] == 6


async def test_streamed_completions_have_an_empty_reason_until_the_end(send: Generate) -> None:
    """And [DONE] after it."""
    asked = {"prompt": "one", "stream": True, "stream_options": {"include_usage": True}}
    response = await send("/v1/completions", asked, behaviour='text="a b"')
    blocks = (await response.text()).split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    seen = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in seen[:-1]] == ["", "", "eos_token"]
    assert "".join(chunk["choices"][0]["text"] for chunk in seen[:-1]) == "a b"
    assert seen[-1]["usage"]["total_tokens"] == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"suffix": "x"}, "Suffix is not supported"), ({"stop": "x"}, "stop: invalid type"), ({"prompt": [1]}, "prompt")],
)
async def test_completions_refuse_what_they_cannot_do(send: Generate, fields: dict[str, Any], words: str) -> None:
    """With status 422."""
    response = await send("/v1/completions", {"prompt": "one"} | fields)
    assert response.status == 422
    assert words in await response.text()


async def test_a_wrong_key_has_an_empty_answer(client: aiohttp.ClientSession) -> None:
    """The scheme may be written in any case; health is open to all."""
    async with Simulator(keys={"tgi": "sk-right"}) as simulator:
        url = f"{simulator.url}/tgi"
        for value, status in (("Bearer sk-wrong", 401), ("bearer sk-right", 200)):
            sent = {"authorization": value}
            asked = {"messages": [{"role": "user", "content": "hi"}]}
            response = await client.post(f"{url}/v1/chat/completions", json=asked, headers=sent)
            assert response.status == status
            assert (await response.read() == b"") == (status == 401)
            assert (await client.get(f"{url}/v1/models", headers=sent)).status == status
        assert (await client.get(f"{url}/health")).status == 200


async def test_it_tells_what_it_is(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Health without a body, one model created at 0, and the limits."""
    url = f"{simulator.url}/tgi"
    assert await (await client.get(f"{url}/health")).read() == b""
    (model,) = (await (await client.get(f"{url}/v1/models")).json())["data"]
    assert (model["id"], model["created"]) == ("meta-llama/Llama-3.1-8B-Instruct", 0)
    info = await (await client.get(f"{url}/info")).json()
    assert (info["model_id"], info["max_total_tokens"]) == (model["id"], 131072)
    assert (await client.get(f"{url}/v1/embeddings")).status == 404
    assert (await client.get(f"{url}/generate")).status == 405
