"""A body -> a Call: as much reading as every upstream needs, and no more.

Source: DESIGN.md §3 ("Validation there"); OpenAI API reference, "Create chat completion".
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.call import Call, Caller, Operation
from proxy.errors import InvalidRequest
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.encoding import decode
from proxy.openai_format.members import DuplicateKey, find_members

MAX_MODEL_LENGTH = 256


_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u....)\\u[dD][c-fC-F]")


class _AnyObject(msgspec.Struct):
    """A JSON object whose members are passed over."""


class _Fields(msgspec.Struct):
    """What is read of a good body."""

    model: str
    stream: bool | None = None
    n: int | None = None


class _ChatFields(_Fields):
    messages: list[_AnyObject] | None = None


_read_fields = msgspec.json.Decoder(_Fields).decode
_read_chat = msgspec.json.Decoder(_ChatFields).decode
_read_messages = msgspec.json.Decoder(list[_AnyObject]).decode


def parse(
    body: bytes,
    *,
    caller: Caller,
    headers: Mapping[str, str],
    call_id: str,
    received_at: float,
    operation: Operation = "chat",
) -> Call:
    """Read what routing and accounting need; the rest is for the upstream to judge.

    Raises:
        InvalidRequest: with `param` naming the field at fault.
    """
    members = _members(body)
    try:
        fields: _Fields = _read_chat(body) if operation == "chat" else _read_fields(body)
    except (msgspec.DecodeError, RecursionError) as error:
        _explain(body, members, operation)
        raise InvalidRequest(f"the body cannot be read: {error}") from error
    model = fields.model
    if not model or len(model) > MAX_MODEL_LENGTH or not model.isprintable():
        raise InvalidRequest(
            f"'model' must be 1 to {MAX_MODEL_LENGTH} printable characters.", param="model", code="invalid_value"
        )
    if not isinstance(fields, _ChatFields):
        _check_present(body, members, "prompt" if operation == "completions" else "input")
    elif not fields.messages:
        _check_messages(body, members.get("messages"))
    return Call(
        id=call_id,
        received_at=received_at,
        body=body,
        members=members,
        model=model,
        stream=bool(fields.stream) and operation != "embeddings",
        wants_usage="stream_options" in members and _wants_usage(body, members),
        caller=caller,
        headers=headers,
        operation=operation,
    )


def _explain(body: bytes, members: Mapping[str, slice], operation: Operation) -> None:
    """Say which field is at fault.

    Raises:
        InvalidRequest: unless all of them are good.
    """
    model = _value(body, members, "model")
    if model is None:
        raise InvalidRequest("you must provide a model parameter", param="model", code="missing_required_parameter")
    if not isinstance(model, str):
        wrong_type("model", "a string", model)
    if operation == "chat":
        _check_messages(body, members.get("messages"))
    stream = _value(body, members, "stream")
    if not isinstance(stream, bool | None):
        wrong_type("stream", "a boolean", stream)
    n = _value(body, members, "n")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
        wrong_type("n", "an integer", n)


def _members(body: bytes) -> Mapping[str, slice]:
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from error
    try:
        return find_members(body)
    except DuplicateKey as error:
        param = error.key[:64] if error.key.isidentifier() else None
        raise InvalidRequest(
            f"{repr(param) if param else 'a key'} stands twice in the body; send it once", param=param
        ) from error
    except ValueError as error:
        if _SURROGATE.search(body):
            raise InvalidRequest("the body holds half a surrogate pair (\\ud83d alone): half a character") from error
        raise InvalidRequest(f"the body is not a JSON object: {error}") from error


def _value(body: bytes, members: Mapping[str, slice], name: str) -> Any:
    place = members.get(name)
    if place is None:
        return None
    try:
        return decode(body[place])
    except ValueError as error:
        raise InvalidRequest(f"'{name}' cannot be read: {error}", param=name) from error


def _check_present(body: bytes, members: Mapping[str, slice], name: str) -> None:
    place = members.get(name)
    if place is None or body[place] == b"null":
        raise InvalidRequest(f"you must provide a parameter '{name}'", param=name, code="missing_required_parameter")


def _check_messages(body: bytes, place: slice | None) -> None:
    text = body[place] if place else b"null"
    if text == b"null":
        raise InvalidRequest(
            "you must provide a messages parameter", param="messages", code="missing_required_parameter"
        )
    try:
        messages = _read_messages(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            "Invalid type for 'messages': expected an array of objects.", param="messages", code="invalid_type"
        ) from error
    if not messages:
        raise InvalidRequest("'messages' must not be empty.", param="messages", code="empty_array")


def _wants_usage(body: bytes, members: Mapping[str, slice]) -> bool:
    options = _value(body, members, "stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        wrong_type("stream_options", "an object", options)
    place = members["stream_options"]
    try:
        find_members(body[place])
    except DuplicateKey as error:
        raise InvalidRequest("a key stands twice in 'stream_options'; send it once", param="stream_options") from error
    asked = options.get("include_usage")
    if not isinstance(asked, bool | None):
        wrong_type("stream_options.include_usage", "a boolean", asked)
    return bool(asked)
