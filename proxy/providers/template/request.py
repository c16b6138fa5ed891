"""The caller's request in the deployment's own JSON."""

from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode

from proxy.call import Call, Json
from proxy.openai_format.encoding import encode
from proxy.openai_format.messages import Message
from proxy.openai_format.request import ChatRequest, read_chat
from proxy.providers.openai.imitation import write_message, write_tool, write_tool_choice
from proxy.providers.template.prompt import Prompt, last_user, lost_calls, system
from proxy.providers.template.settings import PLACE, Shape, column_of, names_in

_ABSENT = object()
_column = cache(column_of)


@dataclass(frozen=True, slots=True)
class Filled:
    """A request in the deployment's own shape.

    Args:
        query: what is added to the address, encoded; empty when there is none.
        n: how many choices were asked for.
    """

    body: Any
    query: str
    n: int
    dropped: tuple[str, ...]


def fill(call: Call, model: str, shape: Shape) -> Filled:
    """The call in the deployment's shape."""
    named = frozenset([*names_in(shape.request), *names_in(shape.query)])
    request = read_chat(call.body, _column(named))
    values = _values(call, request, model, shape, named)
    body, query = _fill(shape.request, values), _fill(dict(shape.query), values)
    lost = () if "messages" in named else lost_calls(request)
    return Filled(
        body={} if body is _ABSENT else body,
        query=urlencode({name: _text(value) for name, value in query.items()}),
        n=request.n,
        dropped=(*request.dropped, *lost),
    )


def _values(call: Call, request: ChatRequest, model: str, shape: Shape, named: frozenset[str]) -> Json:
    """What each name stands for; those that stand for nothing are missing."""
    values: Json = {**request.fields, "model": model, "stream": call.stream}
    for name in ("max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice"):
        values.pop(name, None)
    if request.max_tokens is not None:
        values["max_tokens"] = values["max_completion_tokens"] = request.max_tokens
    if request.stop:
        values["stop"] = request.fields["stop"]
    if request.tools:
        values["tools"] = [write_tool(tool) for tool in request.tools]
        choice = write_tool_choice(request.tool_choice)
        if choice is not None:
            values["tool_choice"] = choice
    values["messages"] = [_message(message) for message in request.messages]
    if "prompt" in named:
        values["prompt"] = Prompt(shape.prompt).render(request)
    if "last_user" in named:
        values["last_user"] = last_user(request)
    if "system" in named and (text := system(request)):
        values["system"] = text
    return values


def _message(message: Message) -> Json:
    """A message whose content is one text when it has nothing else: many endpoints take no parts."""
    written = write_message(message)
    if message.parts and all(part.kind == "text" for part in message.parts):
        written["content"] = "\n".join(message.texts)
    return written


def _fill(template: Any, values: Json) -> Any:
    """The template with its names replaced; what has nothing to stand for is left out."""
    if isinstance(template, dict):
        filled = {name: _fill(value, values) for name, value in template.items()}
        return {name: value for name, value in filled.items() if value is not _ABSENT}
    if isinstance(template, list):
        return [value for item in template if (value := _fill(item, values)) is not _ABSENT]
    if not isinstance(template, str):
        return template
    whole = PLACE.fullmatch(template)
    if whole and whole[1]:
        return values.get(whole[1], _ABSENT)
    return PLACE.sub(lambda match: _text(values.get(match[1], "")) if match[1] else match[0][0], template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()
