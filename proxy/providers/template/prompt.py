"""A conversation as one prompt."""

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.messages import Message
from proxy.openai_format.request import ChatRequest
from proxy.providers.openai.imitation import write_message, write_tool

if TYPE_CHECKING:
    from jinja2 import Template

_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_SIMPLE, _LAST_USER = "simple", "last_user"


def _check_prompt(text: str) -> str:
    if text in (_SIMPLE, _LAST_USER):
        return text
    if "{" not in text:
        raise ValueError("must be simple, last_user, or a Jinja template such as {{ messages[-1].content }}")
    try:
        _compile(text)
    except ValueError as error:
        raise ValueError(f"is not a Jinja template: {error}") from error
    return text


PromptText = Annotated[str, AfterValidator(_check_prompt)]


@cache
def _compile(text: str) -> "Template":
    """A template that can neither reach into Python nor change what it is given."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise ValueError(str(error)) from error


def _refuse(message: str) -> None:
    """What chat templates call for conversations that the model cannot take."""
    raise InvalidRequest(f"the model's chat template refuses these messages: {message}", param="messages")


class Prompt:
    """How messages become a prompt: `simple`, `last_user`, or a Jinja template with `messages`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def render(self, request: ChatRequest, *, images: bool = False) -> str:
        """The prompt.

        Args:
            images: images stand in it as Markdown, which TGI reads.

        Raises:
            InvalidRequest: the template cannot take these messages.
        """
        texts = [_text_of(message, images=images) for message in request.messages]
        if self._text == _LAST_USER:
            return last_user(request, images=images)
        if self._text == _SIMPLE:
            return _lines(request, texts)
        return self._fill(request, texts)

    def _fill(self, request: ChatRequest, texts: list[str]) -> str:
        from jinja2 import TemplateError

        failures = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
        messages: list[Json] = [
            {**write_message(message), "content": text} for message, text in zip(request.messages, texts, strict=True)
        ]
        tools = [write_tool(tool) for tool in request.tools] or None
        try:
            return _compile(self._text).render(
                messages=messages, tools=tools, add_generation_prompt=True, bos_token="", eos_token=""
            )
        except failures as error:
            raise InvalidRequest(
                "these messages do not fit the prompt template of this upstream", param="messages"
            ) from error


def _lines(request: ChatRequest, texts: list[str]) -> str:
    """A lone question as it is; a conversation as lines, with an open one for the answer."""
    if len(texts) == 1 and request.messages[0].role == "user":
        return texts[0]
    lines = [f"{_NAMES[message.role]}: {text}" for message, text in zip(request.messages, texts, strict=True)]
    return "\n".join([*lines, "Assistant:"])


def lost_calls(request: ChatRequest) -> list[str]:
    """The places of tool calls, which a prompt of texts cannot tell."""
    return [f"{message.place}.tool_calls" for message in request.messages if message.tool_calls]


def last_user(request: ChatRequest, *, images: bool = False) -> str:
    """The text of the last message of the user's."""
    last = next((message for message in reversed(request.messages) if message.role == "user"), None)
    return _text_of(last, images=images) if last else ""


def system(request: ChatRequest) -> str:
    """The system messages' texts."""
    return "\n".join(_text_of(message) for message in request.messages if message.role == "system")


def _text_of(message: Message, *, images: bool = False) -> str:
    if not images:
        return "\n".join(message.texts)
    pieces = []
    for part in message.parts:
        if part.kind == "text":
            pieces.append(part.text)
        elif part.kind == "image":
            data = part.data
            pieces.append(f"![]({f'data:{data.media_type};base64,{data.base64}' if data else part.text})")
    return "\n".join(pieces) if message.parts else "\n".join(message.texts)
