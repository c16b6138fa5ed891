"""The types of what we write: an upstream's values of other types never reach a caller on a re-encoded wire.

Source: OpenAI API reference, "The chat completion object", "The chat completion chunk object".
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from proxy.call import Json
from proxy.errors import Broken

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Reason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class _Usage(msgspec.Struct):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count


class _FunctionPiece(msgspec.Struct):
    name: _Name | None = None
    arguments: str = ""


class _ToolPiece(msgspec.Struct):
    index: _Count
    function: _FunctionPiece
    id: _Name | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolPiece] = []


class _ChunkChoice(msgspec.Struct):
    index: _Count
    delta: _Delta
    finish_reason: _Reason | None


class _Chunk(msgspec.Struct):
    id: _Name
    created: _Count
    choices: list[_ChunkChoice]
    usage: _Usage | None = None


class _Function(msgspec.Struct):
    name: _Name
    arguments: str


class _ToolCall(msgspec.Struct):
    id: _Name
    function: _Function


class _Message(msgspec.Struct):
    content: str | None
    refusal: str | None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] = []


class _Choice(msgspec.Struct):
    index: _Count
    message: _Message
    finish_reason: _Reason


class _Completion(msgspec.Struct):
    id: _Name
    created: _Count
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None


class _Embedding(msgspec.Struct):
    embedding: str | Annotated[list[float], msgspec.Meta(min_length=1)]
    index: _Count = 0


class _Embeddings(msgspec.Struct):
    data: Annotated[list[_Embedding], msgspec.Meta(min_length=1)]


def _checker(shape: type[msgspec.Struct], what: str) -> Callable[[Json], None]:
    def check(value: Json) -> None:
        try:
            msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise Broken(
                f"the upstream's {what} has an unknown shape: {error}", code="upstream_bad_response"
            ) from error

    check.__doc__ = f"Raises Broken when this is no {what} of OpenAI's."
    return check


check_chunk = _checker(_Chunk, "stream")
check_completion = _checker(_Completion, "answer")
check_embeddings = _checker(_Embeddings, "answer")


def name_or(value: Any, spare: str) -> str:
    """An upstream's id, or ours where it has none that is a text."""
    return value if isinstance(value, str) and value else spare


def time_or(value: Any, spare: float) -> int:
    """An upstream's unix time in whole seconds, or ours where it has none; some send fractions."""
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53
    return int(value if sane else spare)
