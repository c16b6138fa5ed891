"""A call sent upstream, for itself and for whoever joins it on the way."""

import asyncio
from functools import cached_property
from types import TracebackType

from proxy.cache.answers import Answers
from proxy.cache.flight import Flight
from proxy.cache.lease import Lease
from proxy.cache.neighbours import Starter, Walk
from proxy.cache.question import Question
from proxy.cache.replay import Replay
from proxy.call import Deadline
from proxy.errors import ProxyError, ProxyFault
from proxy.openai_format.transcript import Transcript
from proxy.reply import LiveStream, Reply, WholeReply


class Departure:
    """Implements `Start`: it can be joined from `announce` until there is an answer, or for a stream until its end.

    A whole answer that nobody waits for beside the caller makes no flight.
    """

    _open = True  # for those who would join
    _flight: Flight | None = None  # once it is a stream, or somebody has joined
    _walks = False  # the walk has been entered

    def __init__(self, answers: Answers, question: Question, walk: Walk, deadline: Deadline, starter: Starter) -> None:
        self._answers = answers
        self._question = question
        self._walk = walk
        self._deadline = deadline
        self._starter = starter
        self._task = asyncio.current_task()
        self._place = (question.key.digest, question.call.stream)

    def announce(self) -> None:
        """Let others join, unless there is another such call that they can join."""
        other = self._answers.starts.get(self._place)
        if other is None or not other.joinable:
            self._answers.starts[self._place] = self

    @cached_property
    def lease(self) -> Lease:
        """The right to be the one process that asks."""
        return Lease(self._answers, self._question.key, self._question.rules)

    @property
    def joinable(self) -> bool:
        """Whether whoever joins would be told everything."""
        return self._open and (self._flight is None or self._flight.joinable)

    @property
    def flight(self) -> Flight:
        """With those who have joined; made when it is needed."""
        if self._flight is None:
            question = self._question
            self._flight = Flight(
                self._walk, self._task, question.form, self._deadline, self._answers.most_bytes, question.record,
                self._expire, self._landed, chat=question.call.operation != "completions",
            )  # fmt: skip
            self._starter.share(self._hung_up)
        return self._flight

    async def go(self) -> Reply:
        """The answer of the upstream; raises what the walk does."""
        fetched = await self._walk.__aenter__()
        self._walks = True
        if not isinstance(fetched, WholeReply):
            return self.flight.carry(fetched)
        self._keep(Transcript(fetched.body), fetched, 0.0)
        if self._flight is not None:
            self._flight.carry(fetched)
        self.land(None)
        return fetched

    def tell(self, reply: WholeReply | Replay) -> Reply:
        """The answer that another process has kept meanwhile."""
        return self.flight.carry(reply)

    async def end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The caller has its answer, or will have none; as the call is its handler's, the others' end is waited for."""
        flight = self._flight
        try:
            if flight is not None and not flight.is_over:
                flight.settle()
                if error is None or (not isinstance(error, asyncio.CancelledError) and flight.starter_left()):
                    await flight.wait_for_others()
        except asyncio.CancelledError as left:  # the last one has: nothing more of the upstream is wanted
            kind, error, trace = type(left), left, left.__traceback__
            raise
        finally:
            if flight is not None and flight.failure is not None and error is None:
                error = flight.failure  # the starter has left before it broke
                kind, trace = type(error), error.__traceback__
            if self._open:
                self.land(error)
            if flight is not None:
                flight.release()
                self._flight = None
            if self._walks:
                await self._walk.__aexit__(kind, error, trace)

    async def fail(self, error: BaseException) -> None:
        """There is no answer."""
        self.land(error)
        if self._walks:
            await self._walk.__aexit__(type(error), error, error.__traceback__)

    def land(self, error: BaseException | None) -> None:
        """The call can no longer be joined; whoever still waits for it waits in vain."""
        self._open = False
        starts = self._answers.starts
        if starts.get(self._place) is self:
            del starts[self._place]
        if self._flight is not None:
            self._starter.share(None)
            if not self._flight.is_over:
                fault = ProxyFault("the call that this one had joined was broken off")
                self._flight.fail(error if isinstance(error, ProxyError) else fault)
        if self._question.rules.join_seconds:
            self.lease.release()

    def _landed(self, live: LiveStream, transcript: Transcript) -> None:
        if self._walks:
            self._keep(transcript, live, max(0.0, live.shown - self.flight.began))

    def _keep(self, transcript: Transcript, reply: WholeReply | LiveStream, streamed: float) -> None:
        joined = self._flight.joined if self._flight is not None else 0
        self._answers.keep(self._question, transcript, reply.facts, reply.dropped, streamed, joined)

    def _hung_up(self) -> bool:
        """The caller has gone; whether others need the call."""
        if not self.flight.starter_left():
            return False
        record = self._question.record
        record.outcome = record.outcome or "hangup"  # unless it was told that it gets no more
        return True

    def _expire(self, error: ProxyError) -> None:
        """The caller is to get no more; whoever else waits is not concerned."""
        record = self._question.record
        if self.flight.starter_left():
            record.outcome = "upstream_error" if record.first_token is None else "cut"
            record.reason = error.reason
            self._starter.dismiss(error, record)
        else:
            record.cut_off_by = error
            self.flight.break_off()
