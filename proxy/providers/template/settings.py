"""What YAML says of an upstream with a shape of its own."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from proxy.config import Section
from proxy.openai_format.parameters import DROP, EMULATE, FIELDS, MAP, PARAMETERS, PASS, REJECT, Column, Treatment
from proxy.providers.template.prompt import PromptText

PLACE = re.compile(r"\{\{|\}\}|\{([a-z_]+)\}")
MADE = ("prompt", "messages", "last_user", "system", "model", "stream", "max_tokens", "stop")
_ANSWER_PATHS = (
    "text",
    "generated_text",
    "response",
    "output",
    "choices.0.message.content",
    "choices.0.text",
    "0.generated_text",
    "summary_text",
    "0.summary_text",
    "0.translation_text",
    "0.0.generated_text",
    "result",
    "0",
)
_ITEM_PATHS = (
    "text",
    "generated_text",
    "response",
    "output",
    "delta",
    "content",
    "token.text",
    "choices.0.delta.content",
    "choices.0.text",
)
Framing = Literal["auto", "text", "sse", "ndjson", "json", "none"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_ONE_OR_MANY = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), WithJsonSchema(_ONE_OR_MANY)]


class AnswerShape(Section):
    """Where things stand in an answer; paths are dotted, numbers count list items from 0, the first that hits wins."""

    text: Annotated[Paths, Field(min_length=1, strict=False)] = _ANSWER_PATHS
    """Where the text stands; an answer that is plain text or a JSON string needs no path."""
    prompt_tokens: str | None = None
    completion_tokens: str | None = None
    finish_reason: str | None = None
    error: str = "error"
    """What stands there is an error's text, although the status says 200."""


class StreamShape(Section):
    """How a stream is framed, and where the text stands in its items."""

    framing: Framing = "auto"
    """text: pieces of plain text; sse: data lines; ndjson: a JSON value per line; json: values one after the other;
    none: it does not stream; auto: by the content type."""
    text: Annotated[Paths, Field(min_length=1, strict=False)] = _ITEM_PATHS
    """Where the text stands in an item that is a JSON object."""
    cumulative: bool = False
    """Each item holds the whole text so far."""
    end: str | None = None
    """A text that ends the stream; without it the stream was cut. [DONE] always ends server-sent events."""
    end_field: str | None = None
    """A path that holds something true in the last item; without such an item the stream was cut."""


def names_in(template: Any) -> Iterator[str]:
    """Every name that stands in braces."""
    if isinstance(template, str):
        yield from (match[1] for match in PLACE.finditer(template) if match[1])
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from names_in(value)
    elif isinstance(template, list):
        for value in template:
            yield from names_in(value)


def _check_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must begin with /")
    return path


PathText = Annotated[str, AfterValidator(_check_path), WithJsonSchema({"type": "string", "pattern": "^/"})]


def check_names(template: Any) -> Any:
    """Refuse names that stand for nothing."""
    known = {*MADE, *FIELDS} - {"functions", "function_call", "n"}  # tools are, and one choice is all that is read
    for name in names_in(template):
        if name not in known:
            raise ValueError(f"{{{name}}} is no name of a field; write {{{{ for a brace")
    return template


class Shape(Section):
    """The shape of a deployment's requests and answers."""

    path: PathText = "/"
    """Where calls are posted, below base_url."""
    request: Annotated[Any, AfterValidator(check_names)] = {  # noqa: RUF012
        "prompt": "{prompt}",
        "max_tokens": "{max_tokens}",
    }
    """The JSON that is sent. "{name}" stands for prompt, messages, last_user, system, model, stream, max_tokens, stop
    or any other field of the caller's, and is left out when there is none."""
    query: Annotated[Mapping[str, str], AfterValidator(check_names)] = {}
    """What is added to the address, filled as the request is: {text: "{prompt}"}."""
    prompt: PromptText = "simple"
    """What {prompt} is: simple (lines of `Role: text`), last_user, or a Jinja template with `messages`."""
    answer: AnswerShape = AnswerShape()
    stream: StreamShape = StreamShape()


_TUNING = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort", "verbosity")
COLUMN = Column(
    {
        **{parameter.name: DROP for parameter in PARAMETERS},
        **dict.fromkeys(_TUNING, (DROP, "mapped where the template names it")),
        **dict.fromkeys(("input_audio", "file", "custom tools", "modalities with audio", "audio", "functions"), REJECT),
        **dict.fromkeys(("image data:", "image https:"), (REJECT, "unless the template names messages")),
        **dict.fromkeys(
            (
                "tools",
                "tool_choice required",
                "tool_choice named",
                "tool_choice allowed_tools",
                "logprobs",
                "top_logprobs",
                "json_object",
                "json_schema",
            ),
            (REJECT, "unless the template names it"),
        ),
        "developer role": (MAP, "system"),
        "tool_choice none": (EMULATE, "tools left out"),
        "max_completion_tokens": (MAP, "where the template names max_tokens, else dropped"),
        "max_tokens": (MAP, "where the template names it, else dropped"),
        "stop": (EMULATE, "cut on our side"),
        "n": (EMULATE, "asked n times"),
        "include_usage": EMULATE,
    }
)


def column_of(named: frozenset[str]) -> Column:
    """What becomes of the parameters under a template that names these."""
    cells: dict[str, Treatment] = {}
    for parameter in PARAMETERS:
        if named & set(parameter.fields):
            cells[parameter.name] = PASS
    if "messages" in named:
        cells |= dict.fromkeys(("image data:", "image https:", "input_audio", "file"), PASS)
    limit = MAP if named & {"max_tokens", "max_completion_tokens"} else DROP
    cells |= {"max_tokens": limit, "max_completion_tokens": limit, "stop": EMULATE}
    whole = ("name", "detail", "reasoning", "reasoning_content") if "messages" in named else ()
    return COLUMN.but(cells, in_messages=whole)
