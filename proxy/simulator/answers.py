"""What a simulated model says: the same words for the same seed and conversation, in every dialect."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from proxy.simulator.arguments import invent_arguments
from proxy.simulator.behaviour import Behaviour

SHORTEST, LONGEST = 12, 40  # words of an answer whose length nobody fixed
QUOTED_CHARACTERS = 400  # of tool results, in the answer to them
READ_CHARACTERS = 500  # of the last user message, to find words worth repeating
ARGUMENT_PIECE = 8  # characters of one streamed fragment of arguments

# Each holds a two-byte, a three-byte and a four-byte character of UTF-8, so that every answer can be cut inside one.
OPENERS = (
    "From Köln to 京都 🚀 people ask about {topic}.",
    "Zürich and 東京 agree 🙂 about {topic}.",
    "The Müller and 王 handbook 📘 explains {topic}.",
    "Gödel told 陳 over cake 🍰 about {topic}.",
    "Every café in 大阪 🎉 is discussing {topic}.",
    "My naïve friend 李 smiles 😀 at {topic}.",
)
SENTENCES = (
    "It helps to look at {topic} step by step.",
    "Most people first notice how simple it is.",
    "The details of {topic} matter more than they seem.",
    "A careful reader would compare several sources first.",
    "In short, the common opinion holds up well.",
    "There are good reasons to be patient here.",
    "Some questions about {topic} stay open, and that is fine.",
    "The usual advice is to start small and measure.",
    "Nothing about this is urgent, but it is useful.",
    "With a little practice {topic} becomes quite natural.",
)

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
    """A request of any dialect, after it was judged."""

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
    finish: Finish = "tool_calls" if calls else "stop"
    if question.max_tokens is not None:
        pieces, calls, fits = _fit(pieces, calls, question.max_tokens)
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
        completion_tokens=len(pieces) + sum(len(call.pieces) for call in calls),
    )


def count_prompt(question: Question) -> int:
    """Count the words of the conversation and of the tools, at least 1."""
    words = sum(len(turn.text.split()) for turn in question.turns)
    return max(1, words + sum(1 + len(tool.schema.get("properties") or ()) for tool in question.tools))


def split_pieces(text: str) -> tuple[str, ...]:
    """Cut a text into pieces of about one word, each with the white space before it."""
    return tuple(re.findall(r"\s*\S+|\s+$", text))


def _key(question: Question, seed: int, index: int) -> str:
    """Digest what decides the answer; the model's name does not, so that dialects can be compared."""
    tools = [[tool.name, tool.schema] for tool in question.tools]
    turns = [[turn.role, turn.text] for turn in question.turns]
    choice = [question.tool_choice, question.named_tool, question.parallel]
    material = [seed, question.seed, index, turns, tools, choice]
    return blake2b(msgspec.json.encode(material, order="sorted"), digest_size=12).hexdigest()


def _choose_calls(question: Question, behaviour: Behaviour, chance: random.Random, key: str) -> tuple[ToolCall, ...]:
    """Decide which tools to call: scripted ones, forced ones, or those the user mentions."""
    last = question.turns[-1] if question.turns else Turn("system", "")
    if last.role != "user" or question.tool_choice == "none" or _results(question):
        return ()
    if behaviour.tool_calls is not None:
        planned = [(str(call["name"]), call.get("arguments", {})) for call in behaviour.tool_calls]
    else:
        wanted = _wanted_tools(question, last.text)
        words = _words(last.text) if wanted else ()
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
    text = msgspec.json.encode(arguments).decode()
    pieces = tuple(text[at : at + ARGUMENT_PIECE] for at in range(0, len(text), ARGUMENT_PIECE))
    digest = blake2b(f"{key}/{place}".encode(), digest_size=12).hexdigest()
    return ToolCall(digest, name, arguments, pieces)


def _choose_text(
    question: Question, behaviour: Behaviour, chance: random.Random, *, has_calls: bool
) -> tuple[str, ...]:
    if behaviour.text is not None:
        return split_pieces(behaviour.text)
    if has_calls or not question.turns:
        return ()
    results = _results(question)
    if results and behaviour.tokens is None:
        quoted = "; ".join(results)[:QUOTED_CHARACTERS]
        opener = chance.choice(OPENERS).format(topic="the result")
        return split_pieces(f'{opener} The tool says: "{quoted}".')
    asked = [turn.text for turn in question.turns if turn.role == "user"]
    topic = max(_words(asked[-1] if asked else ""), key=len)
    if behaviour.tokens is not None:
        return _say_exactly(behaviour.tokens, topic, chance)
    return split_pieces(_say(topic, chance))


def _say(topic: str, chance: random.Random) -> str:
    """Put sentences together until the answer is long enough."""
    wanted = chance.randint(SHORTEST, LONGEST)
    said = [chance.choice(OPENERS).format(topic=topic)]
    count = len(said[0].split())
    for sentence in chance.sample(SENTENCES, len(SENTENCES)):
        if count >= wanted:
            break
        length = len(sentence.split())
        if count + length <= LONGEST:
            said.append(sentence.format(topic=topic))
            count += length
    return " ".join(said)


def _say_exactly(tokens: int, topic: str, chance: random.Random) -> tuple[str, ...]:
    """Say exactly so many pieces, starting with the letters outside ASCII."""
    pieces = list(split_pieces(chance.choice(OPENERS).format(topic=topic)))
    while len(pieces) < tokens:
        pieces.extend(split_pieces(" " + chance.choice(SENTENCES).format(topic=topic)))
    return tuple(pieces[:tokens])


def _words(text: str) -> Sequence[str]:
    """Find the words worth repeating, in the text's own order; never none."""
    text = text[:READ_CHARACTERS]
    return re.findall(r"[^\W\d_]{4,40}", text) or re.findall(r"\w{1,40}", text) or ["that"]


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
