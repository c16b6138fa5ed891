"""Answers to /v1/embeddings: passed on, or packed as the caller asked.

Source: OpenAI API reference, "Create embeddings"; reference/upstreams.md §2.9.
"""

from array import array
from base64 import b64encode
from sys import byteorder
from typing import Annotated, Any

import msgspec

from proxy.call import Call, Facts, Json
from proxy.errors import Broken
from proxy.openai_format.amendments import value_of
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.encoding import encode
from proxy.openai_format.parameters import refuse
from proxy.openai_format.shapes import check_embeddings
from proxy.providers.exact import rename
from proxy.providers.seam import Provider, Target


class _Item(msgspec.Struct):
    embedding: msgspec.Raw


class _Answer(msgspec.Struct):
    """What is read of an answer that passes untouched."""

    data: Annotated[list[_Item], msgspec.Meta(min_length=1)]
    usage: dict[str, Any] | None = None
    error: Any = None


_read_answer = msgspec.json.Decoder(_Answer).decode


def read_embeddings(provider: Provider, call: Call, target: Target, body: bytes) -> tuple[bytes, Facts]:
    """The answer as the caller gets it: floats are packed when base64 was asked for and the upstream knows only floats.

    On the exact wire the bytes pass as they are, but for the model's name.

    Raises:
        UpstreamError: the body is an error, or holds no embeddings.
    """
    packs = value_of(call, "encoding_format") == "base64"
    if target.upstream.wire == "exact" and (answer := _untouched(body, packs=packs)) is not None:
        return rename(call, target.model, body), Facts(content=True, finished=True, usage=answer.usage)
    try:
        whole = provider.parse_embeddings(call, target, body)
        check_embeddings(whole)
        data = whole["data"]
        if packs:
            data = [_packed(item) for item in data]
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as error:
        raise Broken("the upstream's answer has an unknown shape", code="upstream_bad_response") from error
    usage = whole.get("usage") or {"prompt_tokens": 0, "total_tokens": 0}
    made = {**whole, "object": "list", "data": data, "model": call.model, "usage": usage}
    return encode(made), Facts(content=True, finished=True, usage=whole.get("usage") or None)


def _untouched(body: bytes, *, packs: bool) -> _Answer | None:
    """What accounting needs of an answer that needs no change; None when it does, or is none."""
    try:
        answer = _read_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    floats = any(bytes(item.embedding).startswith(b"[") for item in answer.data)
    return None if answer.error or answer.usage is None or (packs and floats) else answer


def read_input(fields: Json) -> str | list[str]:
    """The texts of a request, for upstreams that take no tokens.

    Raises:
        InvalidRequest: neither a text nor texts.
        UnsupportedParameter: tokens.
    """
    given = fields.get("input")
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        wrong_type("input", "a string or an array of strings", given)
    if not all(isinstance(item, str) for item in given):
        refuse("input", "This upstream takes texts as 'input', no tokens.", value=True)
    return given


def embedding_list(vectors: list[Any], prompt_tokens: int) -> Json:
    """Vectors of floats in OpenAI's shape; raises ValueError when one is none."""
    for vector in vectors:
        if not isinstance(vector, list) or not vector or isinstance(vector[0], list):
            raise ValueError("not a vector")
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _packed(item: Json) -> Json:
    """An item whose vector is base64 of little-endian float32."""
    vector = item["embedding"]
    if isinstance(vector, str):
        return item
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return {**item, "embedding": b64encode(floats.tobytes()).decode()}
