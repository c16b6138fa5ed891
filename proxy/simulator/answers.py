"""What a simulated model says: the same words for the same seed and conversation, in every dialect."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from proxy.simulator.arguments import invent, invent_arguments
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.phrases import OPENERS, find_words, say, say_exactly, split_pieces

QUOTED_CHARACTERS = 400  # of tool results, in the answer to them
ARGUMENT_PIECE = 8  # characters of one streamed fragment of JSON
BIG_PIECE = 70_000  # characters, for one event above 64 KiB

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "stop_sequence", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, reduced to what a model would read of it."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers, with the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request of any dialect, after it was judged.

    `prompts` are those of a bare completion, each answered by itself; `inputs` are embedded (`flat`: as one).
    `hidden_thoughts` are tokens spent before the answer that nobody sees; `dictated` is the only text allowed.
    """

    model: str
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required", "named"] = "auto"
    named_tool: str | None = None
    parallel: bool = True
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    json_schema: Mapping[str, Any] | None = None
    json_object: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    images: int = 0
    reasoning_effort: str | None = None
    hidden_thoughts: int = 0
    legacy_functions: bool = False
    audio: bool = False
    prompts: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    flat: bool = False
    dictated: str | None = None
    echo: bool = False
    dimensions: int | None = None
    base64: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `key` is a stable text of which each dialect makes its own kind of id."""

    key: str
    name: str
    arguments: Mapping[str, Any]
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says; the joined pieces are the text, tokens are counted in pieces."""

    key: str
    pieces: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    finish: Finish
    stopped_by: str | None
    prompt_tokens: int
    completion_tokens: int
    thoughts: tuple[str, ...] = ()
    reasoning_tokens: int = 0

    @property
    def reasoning(self) -> str:
        """All of what it thought first."""
        return "".join(self.thoughts)

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


def compose(question: Question, behaviour: Behaviour, *, seed: int, index: int = 0) -> Answer:
    """Answer a question.

    Args:
        question: what was asked.
        behaviour: may fix the text, the number of tokens or the tool calls.
        seed: the simulator's; the request's own is mixed in.
        index: which of the `n` answers, from 0.
    """
    key = _key(question, seed, index)
    chance = random.Random(key)
    calls = _choose_calls(question, behaviour, chance, key)
    pieces = _choose_text(question, behaviour, chance, has_calls=bool(calls))
    thoughts = split_pieces(behaviour.reasoning or "")[: question.max_tokens]
    unseen = min(question.hidden_thoughts, question.max_tokens or question.hidden_thoughts)
    finish: Finish = "tool_calls" if calls else "stop"
    if question.max_tokens is not None:
        pieces, calls, fits = _fit(pieces, calls, max(0, question.max_tokens - len(thoughts) - unseen))
        finish = finish if fits else "length"
    pieces, stopped_by = _stop(pieces, question.stops)
    if stopped_by is not None:
        calls, finish = (), "stop_sequence"
    return Answer(
        key=key,
        pieces=pieces,
        calls=calls,
        finish=finish,
        stopped_by=stopped_by,
        prompt_tokens=count_prompt(question),
        completion_tokens=len(pieces) + sum(len(call.pieces) for call in calls) + len(thoughts) + unseen,
        thoughts=thoughts,
        reasoning_tokens=len(thoughts) + unseen,
    )


def compose_all(question: Question, behaviour: Behaviour, *, seed: int) -> list[Answer]:
    """Answer `n` times, each prompt by itself where there are several."""
    asked = [replace(question, turns=(Turn("user", prompt),)) for prompt in question.prompts] or [question]
    return [compose(one, behaviour, seed=seed, index=index) for one in asked for index in range(question.n)]


def count_prompt(question: Question) -> int:
    """Count the words of the conversation and of the tools, at least 1."""
    words = sum(len(turn.text.split()) for turn in question.turns)
    return max(1, words + sum(1 + len(tool.schema.get("properties") or ()) for tool in question.tools))


def _key(question: Question, seed: int, index: int) -> str:
    """Digest what decides the answer; the model's name does not, so that dialects can be compared."""
    tools = [[tool.name, tool.schema] for tool in question.tools]
    turns = [[turn.role, turn.text] for turn in question.turns]
    choice = [question.tool_choice, question.named_tool, question.parallel]
    material: list[Any] = [seed, question.seed, index, turns, tools, choice]
    if question.json_object or question.json_schema is not None:
        material.append([question.json_object, question.json_schema])
    return blake2b(msgspec.json.encode(material, order="sorted"), digest_size=12).hexdigest()


def _choose_calls(question: Question, behaviour: Behaviour, chance: random.Random, key: str) -> tuple[ToolCall, ...]:
    """Decide which tools to call: scripted ones, forced ones, or those the user mentions."""
    last = question.turns[-1] if question.turns else Turn("system", "")
    answered = last.role != "user" or bool(_results(question))
    if question.tool_choice == "none" or (answered and behaviour.tool_calls is None):
        return ()
    if behaviour.tool_calls is not None:
        planned = [(str(call["name"]), call.get("arguments", {})) for call in behaviour.tool_calls]
    else:
        wanted = _wanted_tools(question, last.text)
        words = find_words(last.text) if wanted else ()
        planned = [(tool.name, invent_arguments(tool.schema, words, chance)) for tool in wanted]
    if not question.parallel:
        planned = planned[:1]
    return tuple(_call(key, place, name, arguments) for place, (name, arguments) in enumerate(planned))


def _wanted_tools(question: Question, text: str) -> list[Tool]:
    if question.tool_choice == "named":
        return [tool for tool in question.tools if tool.name == question.named_tool]
    mentioned = [tool for tool in question.tools if _mentions(text, tool.name)]
    if not mentioned and question.tool_choice == "required":
        return list(question.tools[:1])
    return mentioned


def _mentions(text: str, name: str) -> bool:
    pattern = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _call(key: str, place: int, name: str, arguments: Mapping[str, Any]) -> ToolCall:
    pieces = _json_pieces(arguments)
    digest = blake2b(f"{key}/{place}".encode(), digest_size=12).hexdigest()
    return ToolCall(digest, name, arguments, pieces)


def _json_pieces(value: Any) -> tuple[str, ...]:
    text = msgspec.json.encode(value).decode()
    return tuple(text[at : at + ARGUMENT_PIECE] for at in range(0, len(text), ARGUMENT_PIECE))


def _choose_text(
    question: Question, behaviour: Behaviour, chance: random.Random, *, has_calls: bool
) -> tuple[str, ...]:
    pieces = _choose_pieces(question, behaviour, chance, has_calls=has_calls)
    return (*pieces, " " + "x" * BIG_PIECE) if "big_event" in behaviour.quirks else pieces


def _choose_pieces(
    question: Question, behaviour: Behaviour, chance: random.Random, *, has_calls: bool
) -> tuple[str, ...]:
    fixed = question.dictated if behaviour.text is None else behaviour.text
    if fixed is not None:
        return split_pieces(fixed)
    if has_calls or not question.turns:
        return ()
    asked = [turn.text for turn in question.turns if turn.role == "user"]
    if question.json_schema is not None or question.json_object:
        words = find_words(asked[-1] if asked else "")
        schema = question.json_schema or {"type": "object", "properties": {"answer": {}}, "required": ["answer"]}
        return _json_pieces(invent(schema, words, chance))
    results = _results(question)
    if results and behaviour.tokens is None:
        quoted = "; ".join(results)[:QUOTED_CHARACTERS]
        opener = chance.choice(OPENERS).format(topic="the result")
        return split_pieces(f'{opener} The tool says: "{quoted}".')
    topic = max(find_words(asked[-1] if asked else ""), key=len)
    if behaviour.tokens is not None:
        return say_exactly(behaviour.tokens, topic, chance)
    return split_pieces(say(topic, chance))


def _results(question: Question) -> list[str]:
    """Collect the tool results that arrived since the model last spoke."""
    found: list[str] = []
    for turn in reversed(question.turns):
        if turn.role == "assistant":
            break
        if turn.role == "tool":
            found.insert(0, turn.text)
    return found


def _fit(
    pieces: tuple[str, ...], calls: tuple[ToolCall, ...], limit: int
) -> tuple[tuple[str, ...], tuple[ToolCall, ...], bool]:
    """Keep what the token limit allows; a tool call is kept whole or not at all."""
    room = limit - len(pieces)
    if room < 0:
        return pieces[:limit], (), False
    kept: list[ToolCall] = []
    for call in calls:
        room -= len(call.pieces)
        if room < 0:
            return pieces, tuple(kept), False
        kept.append(call)
    return pieces, calls, True


def _stop(pieces: tuple[str, ...], stops: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """Cut the text before the first stop sequence in it."""
    text = "".join(pieces)
    places = [(text.index(stop), stop) for stop in stops if stop and stop in text]
    if not places:
        return pieces, None
    end, stop = min(places)
    kept: list[str] = []
    for piece in pieces:
        if end <= 0:
            break
        kept.append(piece[:end])
        end -= len(piece)
    return tuple(kept), stop
