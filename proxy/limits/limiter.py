"""The limits of one caller or one upstream: reserve, settle, refund."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from proxy.call import Json, NoRoom
from proxy.config import Limits
from proxy.limits.bucket import SOON, Bucket
from proxy.limits.slots import Slots

NEVER = float("inf")
MOST_ASKS = 3  # for the fleet's share, by one call

Tokens = Callable[[], int]  # a call's estimate, for who needs it


class Share(Protocol):
    """This process's part of what a fleet shares."""

    def ask(self) -> "asyncio.Future[None] | None":
        """A call found the share empty; done when there is more, or not. None: there is nobody to ask."""
        ...

    def late(self) -> None:
        """The answer has let wait for too long."""
        ...

    def queued(self) -> None:
        """A call begins to wait for a place."""
        ...

    def used(self) -> None:
        """Something was taken or given back."""
        ...


class Held:
    """Room that a call has; implements `Hold`."""

    __slots__ = ("_limiter", "reserved")

    def __init__(self, limiter: "Limiter", reserved: int) -> None:
        self._limiter: Limiter | None = limiter
        self.reserved = reserved

    def settle(self, used: int | None) -> None:
        """The call is over and has used so many tokens; None: nobody knows, and the estimate stands."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self.reserved, used)

    def cancel(self) -> None:
        """The call was not sent: nothing was used, not even a request."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self.reserved, 0)
            limiter.give_back_request()


class Limiter:
    """Everything is taken at once or not at all: nobody is charged for waiting in vain.

    Args:
        clock: seconds that never go back.
        share_seconds: how long a call may wait for its fleet's share.
    """

    def __init__(self, rules: Limits, clock: Callable[[], float], share_seconds: float = 0.0) -> None:
        now = clock()
        self.rules = rules
        self.slots = Slots(rules.concurrent, rules.queue) if rules.concurrent is not None else None
        self.requests = Bucket(rules.requests_per_minute, now) if rules.requests_per_minute is not None else None
        self.tokens = Bucket(rules.tokens_per_minute, now) if rules.tokens_per_minute is not None else None
        self.share: Share | None = None  # of a fleet's limits
        self.calls_asking = self.asked = 0  # calls that wait for room, and their tokens
        self._clock = clock
        self._share_seconds = share_seconds

    def refusal(self, tokens: Tokens) -> NoRoom | None:
        """Why there is no room for a call at this moment; None: there is."""
        return self._no_place() or self._short(tokens)

    def may_ask(self, refusal: NoRoom) -> bool:
        """Whether there may be room all the same, in the fleet's share that nobody has asked for yet."""
        if self.share is None or refusal.wait > SOON:
            return False
        return refusal.limit != "concurrent" or self._may_grow()

    def _may_grow(self) -> bool:
        """Whether the fleet may have a place that is not ours."""
        return self.share is not None and self.slots is not None and self.slots.in_use < (self.rules.concurrent or 0)

    def take(self, tokens: Tokens) -> Held | NoRoom:
        """Room for one call, at once."""
        taken = self._no_place() or self._charge(tokens)
        if self.slots is not None and isinstance(taken, Held):
            self.slots.take()
        return taken

    def _no_place(self) -> NoRoom | None:
        """Where all places are taken; SOON where it may help to wait, or to ask the fleet for more."""
        slots = self.slots
        if slots is None or slots.free:
            return None
        return NoRoom("concurrent", NEVER if slots.full and not self._may_grow() else SOON)

    def describe(self) -> Json:
        """How the limits stand, for people."""
        told: Json = {}
        if self.slots is not None:
            told["concurrent"] = {
                "limit": self.rules.concurrent,
                "in_use": self.slots.in_use,
                "waiting": self.slots.waiting,
            }
        for name, bucket in (("requests_per_minute", self.requests), ("tokens_per_minute", self.tokens)):
            if bucket is not None:
                told[name] = {"limit": bucket.capacity, "left": round(bucket.now(self._clock()), 3)}
        return told

    async def hold(self, caller: str, tokens: Tokens, patience: float) -> Held | NoRoom:
        """Room for one call; waits in the queue, and for the fleet's share, but not for buckets to fill."""
        amount = tokens() if self.tokens is not None else 0
        self.calls_asking += 1
        self.asked += amount
        try:
            return await self._hold(caller, tokens, patience)
        finally:
            self.calls_asking -= 1
            self.asked -= amount

    async def _hold(self, caller: str, tokens: Tokens, patience: float) -> Held | NoRoom:
        taken = self.take(tokens)
        if isinstance(taken, NoRoom):
            taken = await self._ask(lambda: self.take(tokens), taken)
        slots = self.slots
        if isinstance(taken, Held) or taken.limit != "concurrent" or slots is None:
            return taken
        if slots.waiting >= self.rules.queue:
            return NoRoom("concurrent", NEVER)
        refusal = self._short(tokens)
        if refusal is not None:
            return refusal
        return await self._queue(slots, caller, tokens, min(patience, self.rules.queue_seconds))

    async def _queue(self, slots: Slots, caller: str, tokens: Tokens, patience: float) -> Held | NoRoom:
        """Wait for a place, and then for the rest."""
        if self.share is not None:
            self.share.queued()
        if not await slots.wait(caller, patience):
            return NoRoom("concurrent", NEVER)
        taken: Held | NoRoom | None = None
        try:
            taken = self._charge(tokens)
            if isinstance(taken, NoRoom):
                taken = await self._ask(lambda: self._charge(tokens), taken)
            return taken
        finally:
            if not isinstance(taken, Held):
                slots.give()

    def settle(self, reserved: int, used: int | None) -> None:
        """What a hold gives back."""
        if self.slots is not None:
            self.slots.give()
        if self.tokens is not None and used is not None and used != reserved:
            self.tokens.give(reserved - used, self._clock())
        if self.share is not None:
            self.share.used()

    def give_back_request(self) -> None:
        """A request was not made after all."""
        if self.requests is not None:
            self.requests.give(1, self._clock())

    async def _ask(self, take: Callable[[], Held | NoRoom], refusal: NoRoom) -> Held | NoRoom:
        """Ask the fleet for more, if there is one, and take it; again where others were quicker and more is at hand."""
        share = self.share
        if share is None:
            return refusal
        taken: Held | NoRoom = refusal
        for _ in range(MOST_ASKS):
            answer = share.ask()
            if answer is not None:
                done, _ = await asyncio.wait([answer], timeout=self._share_seconds)
                if not done:
                    share.late()
            taken = take()
            if isinstance(taken, Held) or taken.limit == "concurrent" or taken.wait > SOON:
                break
        return taken

    def _short(self, tokens: Tokens) -> NoRoom | None:
        now, found = self._clock(), None
        if self.requests is not None and (wait := self.requests.wait(1, now)):
            found = NoRoom("requests", wait)
        least = found.wait if found is not None else 0.0
        amount = tokens() if self.tokens is not None else 0
        if self.tokens is not None and amount and (wait := self.tokens.wait(amount, now)) > least:
            found = NoRoom("tokens", wait)
        return found

    def _charge(self, tokens: Tokens) -> Held | NoRoom:
        """Take a request and its tokens, or neither."""
        now, requests, bucket, reserved = self._clock(), self.requests, self.tokens, 0
        if requests is not None and (wait := requests.take(1, now)):
            return self._short(tokens) or NoRoom("requests", wait)
        if bucket is not None and (reserved := tokens()):
            wait = bucket.take(reserved, now)
            if wait:
                if requests is not None:
                    requests.give(1, now)
                return NoRoom("tokens", wait)
        if self.share is not None:
            self.share.used()
        return Held(self, reserved)
