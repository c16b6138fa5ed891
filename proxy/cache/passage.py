"""A cacheable call's way through the cache: given what is kept, joined to the same call in flight, or sent upstream."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from proxy.cache.answers import Answers
from proxy.cache.departure import Departure
from proxy.cache.flight import Flight, GoAlone
from proxy.cache.memory import Kept
from proxy.cache.neighbours import Starter, Walk
from proxy.cache.question import Question
from proxy.cache.reader import Reader
from proxy.cache.replay import Replay
from proxy.call import Call, Deadline
from proxy.errors import (
    CallerKeyRefused,
    LimitReached,
    ModelMissing,
    NotKept,
    RequestRefused,
    TooSlow,
    UpstreamError,
)
from proxy.reply import Reply, WholeReply

_THEIR_FAULT = (RequestRefused, ModelMissing, CallerKeyRefused)  # another answer would not be one to this call

Renew = Callable[[Call, Callable[[], object]], None]


class Passage:
    """Entering it gives the reply, as entering the walk itself would; leaving it ends what it needed.

    `look`, and `fetch` if that has found nothing, come first; then `around`.

    Args:
        renew: makes a call once more behind the caller's back, and tells when that is over.
    """

    _kept: Kept | None = None  # to be given
    _text = b""  # of it, as the call wants it
    _stale: Kept | None = None  # to be given if all else fails
    _joined: tuple[Flight, Reader] | None = None  # another's flight
    _departure: Departure | None = None  # its own
    _given: WholeReply | Replay | None = None

    def __init__(self, answers: Answers, question: Question, renew: Renew) -> None:
        self._answers = answers
        self._question = question
        self._renew = renew

    def look(self) -> bool:
        """Look in memory, and for the same call in flight; whether nothing else is needed."""
        answers = self._answers
        kept = answers.shelf.memory.get(self._question.key.digest)
        if kept is None:
            answers.misses[0] += 1
        elif self._usable(kept) and self._take(kept, "memory"):
            answers.hits[0] += 1
            if not self._is_paced:
                answers.remember(self._question)
            return True
        else:
            answers.telemetry.cache.looked_up("memory", "stale")
            self._stale = kept
            if self._may_renew:
                return answers.shelf.redis is None and self._serve_stale()
        return bool(answers.starts) and self._joinable() is not None

    @property
    def _is_paced(self) -> bool:
        return self._question.rules.replay == "paced" and self._question.call.stream

    @property
    def may_fetch(self) -> bool:
        """Whether there is Redis to look in, too."""
        return self._answers.shelf.redis is not None and self._question.control.read

    async def fetch(self) -> bool:
        """Look in Redis; whether nothing else is needed."""
        kept = await self._answers.shelf.fetch(self._question.key)
        if kept is not None and self._usable(kept) and self._take(kept, "redis"):
            self._answers.telemetry.cache.looked_up("redis", "hit")
            return True
        self._stale = kept or self._stale
        return self._serve_stale() or self._joinable() is not None

    def _usable(self, kept: Kept, stale_seconds: float = 0.0) -> bool:
        """Whether the call may be given this answer, which may be so long past its time."""
        now, control = self._answers.clock(), self._question.control
        return control.read and now < kept.good_until + stale_seconds and kept.age(now) <= control.max_age

    @property
    def _may_renew(self) -> bool:
        seconds = self._question.rules.stale_while_revalidate_seconds
        return seconds > 0 and self._stale is not None and self._usable(self._stale, seconds)

    def _serve_stale(self) -> bool:
        """Whether an answer past its time will do while it is asked again."""
        if not self._may_renew or not self._take(self._stale, "memory"):
            return False
        renewing, digest = self._answers.renewing, self._question.key.digest
        if digest not in renewing:
            renewing.add(digest)
            self._renew(self._question.call, lambda: renewing.discard(digest))
        return True

    def _take(self, kept: Kept | None, tier: Literal["memory", "redis"]) -> bool:
        """Give this answer, if it can be told as the call wants it."""
        text = self._answers.told(kept, self._question.form) if kept is not None else None
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
            seconds, stale = self._question.rules.stale_if_error_seconds, self._stale
            if not seconds or stale is None or isinstance(error, _THEIR_FAULT) or not self._usable(stale, seconds):
                raise
            if not self._take(stale, "memory"):
                raise
            return self._replay()

    async def _enter(self) -> Reply:
        if self._kept is None:
            kept = self._answers.shelf.memory.get(self._question.key.digest)  # it may have come while there was no room
            if kept is not None and self._usable(kept):
                self._take(kept, "memory")
        if self._kept is not None:
            return self._replay()
        if self._question.control.only_kept:
            self._question.record.cache = "miss"
            raise NotKept("there is no kept answer to this call, and it wants no other (only-if-cached)")
        flight = self._joinable() if self._answers.starts else None
        while flight is not None:
            try:
                return await self._join(flight)
            except GoAlone:
                flight = self._joinable()
        return await self._depart()

    async def _depart(self) -> Reply:
        """Send the call upstream, unless another process does it just now."""
        self._question.record.cache = "miss"
        departure = self._departure = Departure(
            self._answers, self._question, self._walk, self._deadline, self._starter
        )
        departure.announce()
        try:
            if self._question.rules.join_seconds and self._question.control.read:
                kept = await departure.lease.obtain(self._usable, self._deadline)
                if self._take(kept, "redis"):
                    self._answers.telemetry.cache.looked_up("redis", "hit")
                    return departure.tell(self._replay())
            return await departure.go()
        except BaseException as error:
            self._departure = None
            await departure.fail(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._departure is not None:
                await self._departure.end(kind, error, trace)
            elif self._joined is not None:
                self._leave(*self._joined)
        finally:
            if isinstance(self._given, Replay):
                self._given.close()

    def _replay(self) -> WholeReply | Replay:
        if self._kept is None:
            raise RuntimeError("nothing is kept")
        answers, question = self._answers, self._question
        self._given = answers.reply(
            self._kept, self._text, question.form, question.record, answers.clock(), paced=self._is_paced
        )
        return self._given

    # Joined to the same call.

    def _joinable(self) -> Flight | None:
        """The same call in flight, if it can give what this one wants."""
        if not self._question.control.read:
            return None
        digest, starts = self._question.key.digest, self._answers.starts
        for place in ((digest, self._question.call.stream), (digest, True)):
            start = starts.get(place)
            if start is not None and start.joinable:
                return start.flight
        return None

    async def _join(self, flight: Flight) -> Reply:
        record, began = self._question.record, time.perf_counter()
        reader = flight.board(self._question.form, self._deadline)
        record.cache = record.phase = "joined"
        self._answers.telemetry.cache.joined(self._question.route.name)
        try:
            whole = await reader.arrived
        except BaseException as error:
            self._leave(flight, reader)
            if self._is_anothers(error, reader):
                raise GoAlone from error
            raise
        finally:
            record.upstream_seconds += time.perf_counter() - began
        self._joined = flight, reader
        record.upstream, record.model, record.dropped = flight.record.upstream, flight.record.model, reader.dropped
        record.first_token = time.perf_counter()
        record.phase = "json" if whole is not None else "stream"
        return whole if whole is not None else reader

    def _is_anothers(self, error: BaseException, reader: Reader) -> bool:
        """Whether a failure is that of the starter, and not of the call."""
        if isinstance(error, TooSlow) and error.clock == "deadline":
            return not reader.expired
        return self._question.rules.shared and isinstance(error, CallerKeyRefused)

    def _leave(self, flight: Flight, reader: Reader) -> None:
        reader.close()
        flight.leave(reader)
