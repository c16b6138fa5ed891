"""One call upstream, and all who wait for its answer.

The starter's handler makes the call. Whoever leaves, be it the starter, leaves it to the others; with the last one it
ends.
"""

import asyncio
from collections.abc import Callable, Mapping

from proxy.cache.audience import Audience
from proxy.cache.neighbours import Walk
from proxy.cache.reader import Reader
from proxy.call import NEVER, UNBOUNDED, Deadline, Facts, longest
from proxy.errors import NO_RETRY, ProxyError, ProxyFault, TooSlow
from proxy.openai_format.transcript import Form, Retelling, Transcript, Untellable, tell
from proxy.reply import Fetched, LiveStream, Reply, WholeReply
from proxy.telemetry import CallRecord

_NOTHING: Mapping[str, str] = {}


class GoAlone(Exception):
    """A flight cannot tell its answer to this reader: the call has to be made once more."""


class Flight:
    """Can be joined until it is over. Implements `Told` for its readers, and `Out` for the upstream's stream.

    Args:
        task: the starter's handler.
        form: what the starter asked for.
        deadline: the starter's; that of a joiner with more time becomes the call's.
        most_bytes: a stream that becomes longer is not kept, and can no longer be joined.
        record: the starter's.
        expire: tells the starter that it gets no more; the call goes on if others wait for it.
        landed: takes what a stream came to, if it has ended well and has not become too long.
        chat: a chat's; else one of the older completions.
    """

    def __init__(
        self,
        walk: Walk,
        task: "asyncio.Task[object] | None",
        form: Form,
        deadline: Deadline,
        most_bytes: int,
        record: CallRecord,
        expire: Callable[[ProxyError], None],
        landed: Callable[[LiveStream, Transcript], object],
        *,
        chat: bool,
    ) -> None:
        self.record = record
        self.joinable = True
        self.is_over = False
        self.failure: BaseException | None = None
        self.joined = 0  # how many have, so far
        self.began = 0.0  # when content came, in the loop's time
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._walk = walk
        self._form: Form = form
        self._chat = chat
        self._deadline = self._starters = deadline
        self._most_bytes = most_bytes
        self._expire = expire
        self._landed = landed
        self._present = True  # the starter is
        self._timer: asyncio.TimerHandle | None = None  # of a starter that the call may outlast
        self._own: Reader | None = None  # the starter's, of a stream
        self._others: list[Reader] = []
        self._audience = Audience()
        self._pieces: list[bytes] = []
        self._keeps = True  # all of them
        self._size = 0
        self._last = b""
        self._live: LiveStream | None = None
        self._slowed = False
        self._waits: asyncio.Future[None] | None = None  # the starter's handler, for the others

    # Those who wait.

    def board(self, form: Form, deadline: Deadline) -> Reader:
        """Wait for the answer too; whoever does leaves in the end."""
        reader = Reader(self, form, deadline)
        self.joined += 1
        self._others.append(reader)
        most = longest(self._deadline, deadline)
        if most != self._deadline:
            self._deadline = most
            self._walk.extend(most)
            self._watch_starter()
        if self._live is not None and form != "whole":
            reader.begin(self._pieces, self._retelling(self._live, form))
            self._audience.add(reader)
        self.changed()
        return reader

    def _watch_starter(self) -> None:
        """The call may now outlast its starter."""
        own = self._starters
        due = own.whole if self._own is not None or self._form == "whole" else min(own.whole, own.content)
        if self._timer is not None:
            self._timer.cancel()
        if self._present and due < NEVER:
            self._timer = self._loop.call_at(due, lambda: self._expire(TooSlow(clock="deadline", headers=NO_RETRY)))

    def leave(self, reader: Reader) -> None:
        """A reader wants no more; the last one ends the call."""
        self._audience.remove(reader)
        if reader in self._others:
            self._others.remove(reader)
            if not self._others and not self._present and not self.is_over:
                self.break_off()
            self.changed()

    def starter_left(self) -> bool:
        """The starter has hung up, or has been told that it gets no more; whether the call goes on."""
        if self.is_over or not self._others:
            return False
        self._present = False
        if self._timer is not None:
            self._timer.cancel()
        if self._own is not None:
            self._audience.remove(self._own)
            if not self._own.finished.done():
                self._own.finished.set_result(None)
                self._own.close()
        self.changed()
        return True

    async def wait_for_others(self) -> None:
        """Until the flight is over: the call is the starter's, and others need it."""
        if self._others and not self.is_over:
            self._waits = self._loop.create_future()
            await self._waits

    def release(self) -> None:
        """Let go of who has read: no garbage is left to collect."""
        self._own = None
        self._audience = Audience()

    def break_off(self) -> None:
        """End the call, whoever waits for it."""
        if self._task is not None:
            self._task.cancel()

    # What comes.

    def carry(self, reply: Fetched) -> Reply:
        """Tell everybody the answer, or that there is a stream; what the starter gets."""
        self.began = self._loop.time()
        if isinstance(reply, WholeReply):
            self._end_well(reply)
            return reply
        self._live = reply
        own = self._own = Reader(self, self._form, UNBOUNDED, self._expire)
        if not self._present:
            own.finished.set_result(None)
        elif self._timer is not None:
            self._watch_starter()
        for reader in [*self._others, *([own] if self._present else [])]:
            if reader.form != "whole":
                reader.begin([], self._retelling(reply, reader.form))
                self._audience.add(reader)
        reply.connect(self)
        reply.finished.add_done_callback(self._ended)
        return own

    def fail(self, error: BaseException) -> None:
        """There is no answer, or no more of it."""
        self.failure = error
        self._land()
        for reader in [*self._others, *([self._own] if self._own is not None else [])]:
            reader.fail(error)

    def settle(self) -> None:
        """See whether the stream has ended, before the loop tells."""
        if self._live is not None and self._live.finished.done():
            self._ended(self._live.finished)

    def _ended(self, finished: "asyncio.Future[None]") -> None:
        live = self._live
        if self.is_over or live is None:
            return
        if finished.cancelled():
            self.fail(ProxyFault("the call that this one had joined was broken off"))
        elif (error := finished.exception()) is not None:
            self.fail(error)
        else:
            self._end_well(live)

    def _end_well(self, reply: Fetched) -> None:
        if isinstance(reply, WholeReply):
            whole: WholeReply | None = reply
        else:
            whole = self._as_whole(reply)
        self._land()
        for reader in [reader for reader in self._others if reader.form == "whole"]:
            if whole is None:
                reader.fail(GoAlone())
            else:
                reader.arrive(whole)

    def _land(self) -> None:
        self.is_over, self.joinable = True, False
        if self._timer is not None:
            self._timer.cancel()
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    def _as_whole(self, live: LiveStream) -> WholeReply | None:
        """A stream as one answer, where somebody waits for such a one, and it can be told so."""
        if not self._keeps or all(reader.form != "whole" for reader in self._others):
            return None
        try:
            text = tell(self._transcript(live), "whole", chat=self._chat)
        except Untellable:
            return None
        return WholeReply(live.headers, live.dropped, text, live.facts)

    def _transcript(self, live: LiveStream, events: bytes | None = None) -> Transcript:
        events = b"".join(self._pieces) + self._last if events is None else events
        return Transcript(None, events, live.usage_event, self._form == "events_usage", live.encoded)

    def _retelling(self, live: LiveStream, form: Form) -> Retelling:
        return Retelling(self._transcript(live, b""), wants_usage=form == "events_usage")

    # Told, for the readers.

    @property
    def headers(self) -> Mapping[str, str]:
        return self._live.headers if self._live is not None else _NOTHING

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._live.dropped if self._live is not None else ()

    @property
    def facts(self) -> Facts:
        return self._live.facts if self._live is not None else Facts()

    @property
    def shown(self) -> float:
        return self._live.shown if self._live is not None else self.began

    def changed(self) -> None:
        """Who reads how is another than before. The upstream waits when nobody can take more."""
        live = self._live
        if live is None or self.is_over:
            return
        self._audience.sort()
        slowed = len(self._audience.readers) == len(self._others) + self._present and self._audience.all_paused
        if slowed is not self._slowed:
            self._slowed = slowed
            (live.pause if slowed else live.resume)()

    # Out, for the upstream's stream.

    @property
    def write(self) -> Callable[[bytes], object] | None:
        return self._write

    def _write(self, framed: bytes) -> None:
        """Take events that are framed as one of HTTP's chunks; they hold no usage."""
        events = framed[framed.index(b"\r\n") + 2 : -2]
        self._keep(events)
        self._audience.tell_framed(framed, events, b"")

    def push(self, data: bytes) -> None:
        self._keep(data)
        self._audience.tell(data, self._usage_event)

    def push_last(self, data: bytes) -> None:
        self._last, self.joinable = data, False
        if self._live is not None and self._keeps:  # from now on it is kept, and cannot be joined
            self._landed(self._live, self._transcript(self._live))
        self._audience.tell_last(data, self._usage_event)

    @property
    def _usage_event(self) -> bytes:
        return self._live.usage_event if self._live is not None else b""

    def _keep(self, events: bytes) -> None:
        """Keep events for whoever joins, and for later calls, up to a bound."""
        if not self._keeps:
            return
        self._size += len(events)
        self._pieces.append(events)
        if self._size > self._most_bytes:
            self._keeps = self.joinable = False
            self._pieces = []
            for reader in [reader for reader in self._others if reader.form == "whole"]:
                reader.fail(GoAlone())
