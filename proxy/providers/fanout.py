"""Several streams of one request as one stream with several choices: `n` where the dialect has none.

Source: reference/upstreams.md §3 ("n > 1 emulation").
"""

from collections.abc import Callable, Iterable, Iterator

from proxy.call import Call, Json
from proxy.openai_format.chunks import merge_usage
from proxy.providers.relay import EncodedRelay
from proxy.providers.seam import StreamParser


class MergedRelay(EncodedRelay):
    """Writes the chunks of all branches, each with its choice's index.

    Id and time are those of the first branch that speaks; usage comes once, at the end: the prompt's tokens are
    counted once, the answers' added.
    """

    def __init__(self, parsers: list[StreamParser], call: Call) -> None:
        super().__init__(parsers[0], call)
        self._parsers = parsers
        self._open = len(parsers)
        self._head: Json = {}
        self._usages: list[Json] = []

    def feed_branch(self, index: int, data: bytes) -> bytes:
        """Bytes of one branch."""
        parser = self._parsers[index]
        out = self.write(self._renumbered(index, parser.feed(data)))
        if parser.thinking:
            self.facts.content = True
        return out

    def finish_branch(self, index: int) -> bytes:
        """One branch has ended."""
        self._open -= 1
        return self.write(self._renumbered(index, self._parsers[index].finish()))

    def branch_ended(self, index: int) -> bool:
        """Whether a branch's terminal event has come."""
        return self._parsers[index].ended

    @property
    def complete(self) -> bool:
        """Whether all branches have ended."""
        return self._open == 0

    def finish(self) -> bytes:
        return self.close(self._usage())

    def _usage(self) -> Iterator[Json]:
        counts = merge_usage(self._usages)
        if counts:
            yield {**self._head, "choices": [], "usage": counts}

    def _renumbered(self, index: int, chunks: Iterable[Json]) -> Iterator[Json]:
        for chunk in chunks:
            if not self._head:
                self._head = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
            if chunk.get("usage"):
                self._usages.append(chunk["usage"])
            if chunk["choices"]:
                yield {**self._head, "choices": [{**choice, "index": index} for choice in chunk["choices"]]}


class Branch:
    """The sink of one branch.

    Args:
        absorb: takes how many bytes came and what may go to the caller.
        end, fail: of the whole stream.
    """

    def __init__(
        self,
        relay: MergedRelay,
        index: int,
        absorb: Callable[[int, bytes], None],
        end: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._relay, self._index = relay, index
        self._absorb, self._end, self._fail = absorb, end, fail
        self._done = False

    def feed(self, data: bytes) -> None:
        if self._done:
            return
        self._absorb(len(data), self._relay.feed_branch(self._index, data))
        if self._relay.branch_ended(self._index):
            self.end()

    def end(self) -> None:
        if self._done:
            return
        self._done = True
        self._absorb(0, self._relay.finish_branch(self._index))
        if self._relay.complete and self._relay.failure is None:
            self._end()

    def fail(self, error: Exception) -> None:
        if not self._done:
            self._done = True
            self._fail(error)
