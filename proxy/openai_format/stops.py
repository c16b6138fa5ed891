"""Stop strings cut on our side, for upstreams that echo them or do not know them.

Source: reference/upstreams.md §9.4, §11.3, test vectors 21 and 22.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from proxy.call import Call, Json
from proxy.openai_format.amendments import value_of


@dataclass(slots=True)
class _Tail:
    """The end of a choice's text that may be the beginning of a stop string."""

    held: str = ""
    hit: bool = False
    entries: list[Json] = field(default_factory=list)  # log probabilities of what is held
    credit: int = 0  # characters that were shown beyond the tokens whose probabilities were


class _Parser(Protocol):
    @property
    def begun(self) -> Json | None: ...

    @property
    def thinking(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    def feed(self, data: bytes) -> Iterable[Json]: ...

    def finish(self) -> Iterable[Json]: ...


class CutStream:
    """A stream whose text ends before the first stop string; see `StreamParser`.

    Args:
        leave: end the stream at the cut, since the upstream would go on writing.
    """

    plain = False

    def __init__(self, parser: _Parser, stops: tuple[str, ...], *, leave: bool = False) -> None:
        self._parser = parser
        self._stops = stops
        self._leave = leave
        self._tails: dict[int, _Tail] = {}
        self._left = False

    @property
    def begun(self) -> Json | None:
        return self._parser.begun

    @property
    def thinking(self) -> bool:
        return self._parser.thinking

    @property
    def ended(self) -> bool:
        return self._left or self._parser.ended

    def feed(self, data: bytes) -> Iterator[Json]:
        for chunk in self._parser.feed(data):
            yield from self._cut(chunk)

    def finish(self) -> Iterator[Json]:
        if not self._left:
            for chunk in self._parser.finish():
                yield from self._cut(chunk)

    def _cut(self, chunk: Json) -> Iterator[Json]:
        if self._left:
            return
        if not chunk["choices"]:
            yield chunk
            return
        choice = chunk["choices"][0]
        tail = self._tails.setdefault(choice["index"], _Tail())
        text = choice["delta"].get("content")
        was_hit = tail.hit
        if was_hit:
            if choice["finish_reason"]:
                yield {**chunk, "choices": [{**choice, "delta": {}, "finish_reason": "stop"}]}
            return
        if text:
            tail.entries += (choice.get("logprobs") or {}).get("content") or ()
            shown = self._take(tail, text)
            if shown:
                yield _shown(chunk, choice, tail, shown)
            if tail.hit and self._leave:
                self._left = True
                yield {**chunk, "choices": [{"index": choice["index"], "delta": {}, "finish_reason": "stop"}]}
            return
        if tail.held and (choice["finish_reason"] or "tool_calls" in choice["delta"]):
            shown, tail.held = tail.held, ""
            yield _shown(chunk, {**choice, "delta": {}, "finish_reason": None}, tail, shown)
        yield chunk

    def _take(self, tail: _Tail, text: str) -> str:
        """What of the text may be shown now."""
        whole = tail.held + text
        place = find_stop(whole, self._stops)
        if place is not None:
            tail.hit, tail.held = True, ""
            return whole[:place]
        kept = held_back(whole, self._stops)
        tail.held = whole[len(whole) - kept :]
        return whole[: len(whole) - kept]


def _shown(chunk: Json, choice: Json, tail: _Tail, text: str) -> Json:
    """The chunk with this text, and the log probabilities of the tokens that are wholly in what was shown."""
    tail.credit += len(text)
    entries: list[Json] = []
    while tail.entries and len(tail.entries[0].get("token") or "") <= tail.credit:
        tail.credit -= len(tail.entries[0].get("token") or "")
        entries.append(tail.entries.pop(0))
    made = {**choice, "delta": {**choice["delta"], "content": text}}
    if "logprobs" in made or entries:
        made["logprobs"] = {"content": entries, "refusal": None} if entries else None
    return {**chunk, "choices": [made]}


def stops_of(call: Call) -> tuple[str, ...]:
    """The stop strings that a call asks for, without empty ones."""
    stop = value_of(call, "stop") or ()
    return tuple(each for each in ([stop] if isinstance(stop, str) else stop) if each)


def held_back(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    return max(
        (
            length
            for stop in stops
            for length in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:length])
        ),
        default=0,
    )


def find_stop(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the stop string that is complete first begins: the same for any cuts of the text."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def cut_completion(whole: Json, stops: tuple[str, ...]) -> Json:
    """A completion whose texts end before the first stop string."""
    return {**whole, "choices": [_cut_choice(choice, stops) for choice in whole["choices"]]} if stops else whole


def _cut_choice(choice: Json, stops: tuple[str, ...]) -> Json:
    text = choice["message"].get("content") or ""
    place = find_stop(text, stops)
    if place is None:
        return choice
    message = {name: value for name, value in choice["message"].items() if name not in _AFTER_TEXT}
    made = {**choice, "message": {**message, "content": text[:place]}, "finish_reason": "stop"}
    if choice.get("logprobs"):
        tail = _Tail(entries=list(choice["logprobs"].get("content") or ()))
        made["logprobs"] = _shown({}, {"delta": {}}, tail, text[:place])["choices"][0].get("logprobs")
    return made


_AFTER_TEXT = ("tool_calls", "thinking_blocks")  # what would have come after the stop
