"""Embeddings come in the form that the caller asked for, whatever the upstream knows."""

import json
import struct
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Facts, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import Broken, InvalidRequest, UnsupportedParameter, UpstreamError
from proxy.providers import providers, traits
from proxy.providers.embeddings import embedding_list, read_embeddings, read_input
from proxy.providers.seam import Target

OPENAI = providers()["openai"]
TARGET = Target(
    "up", build(Document("t", {"upstreams": {"up": {"provider": "openai"}}}), traits()).upstreams["up"], "m"
)
USAGE = {"prompt_tokens": 3, "total_tokens": 3}
FLOATS = [0.5, -1.25, 0.0, 3]
PACKED = b64encode(struct.pack("<4f", *FLOATS)).decode()


def call(**fields: Any) -> Call:
    body = json.dumps({"model": "asked", "input": "Hello", **fields}).encode()
    return parse(body, operation="embeddings", caller=Caller(), headers={}, call_id="1", received_at=1.0)


def answer(*vectors: Any, **more: Any) -> Json:
    items = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": items, "model": "up", "usage": USAGE, **more}


def read(whole: Any, **fields: Any) -> tuple[Json, Facts]:
    """What the caller gets for an upstream's answer, and what accounting learns."""
    body, facts = read_embeddings(OPENAI, call(**fields), TARGET, json.dumps(whole).encode())
    return json.loads(body), facts


@pytest.mark.parametrize("fields", [{}, {"encoding_format": "float"}, {"encoding_format": None}])
def test_floats_stay_floats(fields: Json) -> None:
    """Unless base64 is asked for, vectors are passed on; only the model has the name that was asked."""
    whole, facts = read(answer(FLOATS, [1]), **fields)
    assert whole == answer(FLOATS, [1], model="asked")
    assert facts == Facts(content=True, finished=True, usage=USAGE)


def test_floats_are_packed_for_who_asked_for_base64() -> None:
    """The vector becomes base64 of little-endian float32, the rest of an item stays."""
    whole, _ = read(answer(FLOATS, FLOATS), encoding_format="base64")
    assert whole == answer(PACKED, PACKED, model="asked")


def test_what_is_packed_is_not_packed_again() -> None:
    """An upstream that knows base64 is believed."""
    assert read(answer(PACKED), encoding_format="base64")[0] == answer(PACKED, model="asked")


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_packed_floats_can_be_read_again(vector: list[float]) -> None:
    """A client that decodes as OpenAI's do gets the vector that the upstream gave."""
    packed = read(answer(vector), encoding_format="base64")[0]["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(vector)}f", b64decode(packed))) == vector


def test_unknown_usage_is_zero_and_not_counted() -> None:
    """Clients rely on usage being there; accounting is not told what nobody said."""
    whole, facts = read({"data": answer(FLOATS)["data"]})
    assert (whole["object"], whole["usage"]) == ("list", {"prompt_tokens": 0, "total_tokens": 0})
    assert facts.usage is None


@pytest.mark.parametrize(
    "whole",
    [
        {},
        [],
        "Hello",
        None,
        answer(),
        {"data": {}},
        {"object": "list", "data": None},
    ],
)
def test_no_embeddings_are_no_answer(whole: Any) -> None:
    """An answer without any is the upstream's failure: clients raise on an empty list."""
    with pytest.raises(UpstreamError) as caught:
        read(whole)
    assert caught.value.code == "upstream_bad_response"


@pytest.mark.parametrize("vector", [None, 1, {}, {"0": 0.5}, ["a"], [None], [[0.5]], [0.5, None]])
def test_what_cannot_be_packed_is_no_answer(vector: Any) -> None:
    """A vector of anything but numbers is the upstream's failure, not ours."""
    with pytest.raises(Broken) as caught:
        read(answer(FLOATS, vector), encoding_format="base64")
    assert caught.value.code == "upstream_bad_response"


@pytest.mark.parametrize("item", [None, 1, [], {}, "Hello"])
def test_an_item_of_another_shape_is_no_answer(item: Any) -> None:
    """So is an item that holds no vector."""
    with pytest.raises(Broken):
        read({"data": [item]}, encoding_format="base64")


def test_an_error_in_a_success_is_an_error() -> None:
    """A 200 that holds an error is never given out as embeddings."""
    with pytest.raises(UpstreamError, match="no such model"):
        read({"error": {"message": "no such model"}})


@pytest.mark.parametrize("given_", ["Hello", "", ["Hello"], ["a", ""]])
def test_texts_are_read(given_: Any) -> None:
    """A text or several stay what they are."""
    assert read_input({"input": given_}) == given_


@pytest.mark.parametrize("given_", [[1, 2], [[1, 2], [3]], ["a", 1], [["a"]], [None]])
def test_tokens_are_refused(given_: Any) -> None:
    """An upstream that takes texts only is not sent tokens."""
    with pytest.raises(UnsupportedParameter) as caught:
        read_input({"input": given_})
    assert (caught.value.param, caught.value.code) == ("input", "unsupported_value")


@pytest.mark.parametrize("fields", [{}, {"input": None}, {"input": []}, {"input": 1}, {"input": {}}])
def test_no_texts_are_the_callers_fault(fields: Json) -> None:
    """What is neither a text nor texts is refused by name."""
    with pytest.raises(InvalidRequest) as caught:
        read_input(fields)
    assert (caught.value.param, caught.value.code) == ("input", "invalid_type")


def test_vectors_become_openais_list() -> None:
    """Each vector gets its index, and all tokens are the prompt's."""
    assert embedding_list([FLOATS, [1.0]], 3) == {
        name: value for name, value in answer(FLOATS, [1.0]).items() if name != "model"
    }


@pytest.mark.parametrize("vectors", [[[]], [0.5], ["a"], [None], [[[0.5]]], [FLOATS, []]])
def test_what_is_no_vector(vectors: list[Any]) -> None:
    """An upstream that answers per token, or not at all, is not read as if it had answered per text."""
    with pytest.raises(ValueError, match="not a vector"):
        embedding_list(vectors, 0)


def test_an_exact_answer_keeps_its_bytes() -> None:
    """Spaces, unknown members and the spelling of numbers pass; only a model of another name is put right."""
    data, rest = b'"data": [{"embedding": [1.50, 2e0], "x": null}]', b'"model" : "m", "usage": {"total_tokens": 3}'
    body = b'{ "object": "list",\n %b, %b}' % (data, rest)
    same, facts = read_embeddings(OPENAI, call(), replace(TARGET, model="asked"), body)
    assert same == body
    assert facts.usage == {"total_tokens": 3}
    renamed, _ = read_embeddings(OPENAI, call(), TARGET, body)
    assert renamed == body.replace(b'"model" : "m"', b'"model" : "asked"')
    packed, _ = read_embeddings(OPENAI, call(encoding_format="base64"), TARGET, body)
    assert json.loads(packed)["data"][0]["embedding"] == b64encode(struct.pack("<2f", 1.5, 2.0)).decode()
