"""A cacheable call's way through the cache: given what is kept, joined to the same call in flight, or sent upstream."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from proxy.cache.answers import Answers, Question
from proxy.cache.flight import Flight, GoAlone
from proxy.cache.lease import Lease
from proxy.cache.memory import Kept
from proxy.cache.neighbours import Starter, Walk
from proxy.cache.reader import Reader
from proxy.cache.replay import Replay
from proxy.call import Call, Deadline, Facts
from proxy.errors import (
    CallerKeyRefused,
    LimitReached,
    ModelMissing,
    NotKept,
    ProxyError,
    ProxyFault,
    RequestRefused,
    TooSlow,
    UpstreamError,
)
from proxy.openai_format.transcript import Transcript
from proxy.reply import LiveStream, Reply, WholeReply

_NO_HEADERS: Mapping[str, str] = {}
_THEIR_FAULT = (RequestRefused, ModelMissing, CallerKeyRefused)  # another answer would not be one to this call


class Passage:
    """Entering it gives the reply, as entering the walk itself would; leaving it ends what it needed.

    `look`, and `fetch` if that has found nothing, come first.

    Args:
        renew: makes a call once more behind the caller's back, and tells when that is over.
    """

    def __init__(
        self, answers: Answers, question: Question, renew: Callable[[Call, Callable[[], object]], None]
    ) -> None:
        self._renew = renew
        self._answers = answers
        self._question = question
        self._kept: Kept | None = None  # to be given
        self._text = b""  # of it, as the call wants it
        self._stale: Kept | None = None  # to be given if all else fails
        self._walk: Walk
        self._deadline: Deadline
        self._starter: Starter
        self._flight: Flight | None = None
        self._reader: Reader | None = None  # in another's flight
        self._leads = False
        self._lease: Lease | None = None

    def look(self) -> bool:
        """Look in memory, and for the same call in flight; whether nothing else is needed."""
        answers, question = self._answers, self._question
        kept = answers.tiers.memory.get(question.key.digest)
        if answers.usable(question, kept) and self._take(kept, "memory"):
            answers.telemetry.looked_up("memory", "hit")
            answers.remember(question)
            return True
        answers.telemetry.looked_up("memory", "miss" if kept is None else "stale")
        self._stale = kept
        if answers.tiers.redis is None and self._serve_stale():
            return True
        return not self._may_renew and self._joinable() is not None

    async def fetch(self) -> bool:
        """Look in Redis; whether nothing else is needed."""
        answers, question = self._answers, self._question
        if answers.tiers.redis is not None and question.control.read:
            kept: Kept | None = await answers.tiers.get(question.key)
            if answers.usable(question, kept) and self._take(kept, "redis"):
                answers.telemetry.looked_up("redis", "hit")
                return True
            self._stale = kept or self._stale
        return self._serve_stale() or self._joinable() is not None

    @property
    def _may_renew(self) -> bool:
        seconds = self._question.rules.stale_while_revalidate_seconds
        return seconds > 0 and self._answers.usable(self._question, self._stale, seconds)

    def _serve_stale(self) -> bool:
        """Whether an answer past its time will do while it is asked again."""
        if not self._may_renew or not self._take(self._stale, "memory"):
            return False
        renewing, digest = self._answers.renewing, self._question.key.digest
        if digest not in renewing:
            renewing.add(digest)
            self._renew(self._question.call, lambda: renewing.discard(digest))
        return True

    def _take(self, kept: Kept | None, tier: str) -> bool:
        """Give this answer, if it can be told as the call wants it."""
        text = self._answers.told(self._question, kept) if kept is not None else None
        if text is None:
            return False
        self._kept, self._text, self._question.record.cache = kept, text, tier
        return True

    def around(self, walk: Walk, deadline: Deadline, starter: Starter) -> "Passage":
        """The passage, ready to be entered; the walk is for the case that it is needed."""
        self._walk, self._deadline, self._starter = walk, deadline, starter
        return self

    async def __aenter__(self) -> Reply:
        try:
            return await self._enter()
        except (UpstreamError, LimitReached) as error:
            seconds = self._question.rules.stale_if_error_seconds
            usable = seconds > 0 and self._answers.usable(self._question, self._stale, seconds)
            if not usable or isinstance(error, _THEIR_FAULT) or not self._take(self._stale, "memory"):
                raise
            return self._replay()

    async def _enter(self) -> Reply:
        if self._kept is None:
            kept = self._answers.tiers.memory.get(self._question.key.digest)  # it may have come while there was no room
            if self._answers.usable(self._question, kept):
                self._take(kept, "memory")
        if self._kept is not None:
            return self._replay()
        if self._question.control.only_kept:
            raise NotKept("there is no kept answer to this call, and it wants no other (only-if-cached)")
        flight = self._joinable()
        while flight is not None:
            try:
                return await self._join(flight)
            except GoAlone:
                flight = self._joinable()
            except TooSlow as error:  # the starter's time was over, and ours is not
                if error.clock != "deadline" or self._deadline.whole <= self._answers.clock():
                    raise
                flight = self._joinable()
        return await self._lead()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None and self._flight is not None:
            self._leave(self._flight, self._reader)
        elif self._flight is not None:
            await self._end(self._flight, kind, error, trace)
        elif self._leads:
            await self._walk.__aexit__(kind, error, trace)

    # Given what is kept.

    def _replay(self) -> WholeReply | Replay:
        kept, record, answers = self._kept, self._question.record, self._answers
        if kept is None:
            raise RuntimeError("nothing is kept")
        entry = kept.entry
        record.age = int(kept.age(answers.clock()))
        record.upstream, record.model, record.dropped = entry.upstream, entry.model, entry.dropped
        record.first_token = time.perf_counter()
        if entry.cost:
            answers.telemetry.saved(entry.route, entry.upstream, entry.cost)
        if self._question.form == "whole":
            return WholeReply(_NO_HEADERS, entry.dropped, self._text, Facts())
        paced = self._question.rules.replay == "paced"
        return Replay(self._text, entry.dropped, entry.streamed if paced else 0.0)

    # Joined to the same call.

    def _joinable(self) -> Flight | None:
        """The same call in flight, if it can give what this one wants."""
        question, flights = self._question, self._answers.flights
        if not question.control.read:
            return None
        stream = question.form != "whole"
        for key in ((question.key.digest, stream), (question.key.digest, True)):
            flight = flights.get(key)
            if flight is not None and flight.joinable:
                return flight
        return None

    async def _join(self, flight: Flight) -> Reply:
        record, began = self._question.record, time.perf_counter()
        reader = flight.board(self._question.form, self._deadline)
        record.cache, record.phase = "joined", "joined"
        self._answers.telemetry.joined(self._question.route.name)
        try:
            whole = await reader.arrived
        except BaseException:
            self._leave(flight, reader)
            raise
        finally:
            record.upstream_seconds += time.perf_counter() - began
        self._flight, self._reader = flight, reader
        record.upstream, record.model, record.dropped = flight.record.upstream, flight.record.model, reader.dropped
        record.first_token = time.perf_counter()
        record.phase = "json" if whole is not None else "stream"
        return whole if whole is not None else reader

    def _leave(self, flight: Flight, reader: Reader) -> None:
        reader.close()
        flight.leave(reader)

    # Sent upstream, for itself and whoever joins.

    async def _lead(self) -> Reply:
        question, answers = self._question, self._answers
        flight = self._flight = Flight(
            self._walk, question.form, self._deadline, answers.most_bytes, question.record, self._expire, self._landed,
            chat=question.call.operation != "completions",
        )  # fmt: skip
        place = (question.key.digest, question.form != "whole")
        other = answers.flights.get(place)
        if other is None or not other.joinable:
            answers.flights[place] = flight
        question.record.cache = "miss"
        self._starter.share(self._hung_up)
        try:
            reply = await self._fetched()
        except BaseException as error:
            self._take_off(flight, error)
            raise
        if isinstance(reply, WholeReply):
            self._take_off(flight, None)
            self._flight = None
        return reply

    async def _fetched(self) -> Reply:
        """The answer of another process, if there is one that asks already; else of the walk."""
        flight, question = self._flight, self._question
        if flight is None:
            raise RuntimeError("there is no flight")
        if question.rules.join_seconds:
            self._lease = Lease(self._answers, question)
            if self._take(await self._lease.obtain(), "redis"):
                return flight.carry(self._replay())
        fetched = await self._walk.__aenter__()
        self._leads = True
        if isinstance(fetched, WholeReply):
            transcript = Transcript(whole=fetched.body)
            self._answers.keep(question, transcript, fetched.facts, fetched.dropped, joined=flight.joined)
        return flight.carry(fetched)

    def _landed(self, live: LiveStream, transcript: Transcript) -> None:
        if self._leads and self._flight is not None:
            flight, streamed = self._flight, max(0.0, live.shown - self._flight.began)
            self._answers.keep(self._question, transcript, live.facts, live.dropped, streamed, joined=flight.joined)

    def _hung_up(self) -> bool:
        """The caller has gone; whether others need the call."""
        if self._flight is None or not self._flight.starter_left():
            return False
        self._question.record.outcome = "hangup"
        return True

    def _expire(self, error: ProxyError) -> None:
        """The caller is to get no more; whoever else waits is not concerned."""
        record = self._question.record
        if self._flight is not None and self._flight.starter_left():
            record.outcome, record.reason, record.status = "upstream_error", error.reason, error.status
            self._starter.dismiss(error, record)
        elif self._flight is not None:
            record.cut_off_by = error
            self._flight.break_off()

    async def _end(
        self,
        flight: Flight,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the flight; as its call is this handler's, when the others have left too."""
        try:
            flight.settle()
            if error is None or (not isinstance(error, asyncio.CancelledError) and flight.starter_left()):
                await flight.wait_for_others()
        finally:
            self._take_off(flight, error)
            if self._leads:
                await self._walk.__aexit__(kind, error, trace)

    def _take_off(self, flight: Flight, error: BaseException | None) -> None:
        """The flight can no longer be joined; whoever still waits for it waits in vain."""
        self._starter.share(None)
        place = (self._question.key.digest, self._question.form != "whole")
        if self._answers.flights.get(place) is flight:
            del self._answers.flights[place]
        if not flight.is_over:
            fault = ProxyFault("the call that this one had joined was broken off")
            flight.fail(error if isinstance(error, ProxyError) else fault)
        if self._lease is not None:
            self._lease.release()
