"""Stop strings cut on our side, for upstreams that echo them or do not know them.

Source: reference/upstreams.md §9.4, §11.3, test vectors 21 and 22.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from proxy.call import Json


@dataclass(slots=True)
class _Tail:
    """The end of a choice's text that may be the beginning of a stop string."""

    held: str = ""
    hit: bool = False


class _Parser(Protocol):
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

    def __init__(self, parser: _Parser, stops: tuple[str, ...], *, leave: bool = False) -> None:
        self._parser = parser
        self._stops = stops
        self._leave = leave
        self._tails: dict[int, _Tail] = {}
        self._left = False

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
            shown = self._take(tail, text)
            if shown:
                yield {**chunk, "choices": [{**choice, "delta": {**choice["delta"], "content": shown}}]}
            if tail.hit and self._leave:
                self._left = True
                yield {**chunk, "choices": [{"index": choice["index"], "delta": {}, "finish_reason": "stop"}]}
            return
        if tail.held and (choice["finish_reason"] or "tool_calls" in choice["delta"]):
            yield {**chunk, "choices": [{**choice, "delta": {"content": tail.held}, "finish_reason": None}]}
            tail.held = ""
        yield chunk

    def _take(self, tail: _Tail, text: str) -> str:
        """What of the text may be shown now."""
        whole = tail.held + text
        places = [place for stop in self._stops if (place := whole.find(stop)) >= 0]
        if places:
            tail.hit, tail.held = True, ""
            return whole[: min(places)]
        kept = max(
            (length for stop in self._stops for length in range(1, len(stop)) if whole.endswith(stop[:length])),
            default=0,
        )
        tail.held = whole[len(whole) - kept :]
        return whole[: len(whole) - kept]


def cut_completion(whole: Json, stops: tuple[str, ...]) -> Json:
    """A completion whose texts end before the first stop string."""
    return {**whole, "choices": [_cut_choice(choice, stops) for choice in whole["choices"]]} if stops else whole


def _cut_choice(choice: Json, stops: tuple[str, ...]) -> Json:
    text = choice["message"].get("content") or ""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        return choice
    message = {name: value for name, value in choice["message"].items() if name not in _AFTER_TEXT}
    return {**choice, "message": {**message, "content": text[: min(places)]}, "finish_reason": "stop"}


_AFTER_TEXT = ("tool_calls", "thinking_blocks")  # what would have come after the stop
