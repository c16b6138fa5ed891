"""Walks a route's targets until one answers."""

import asyncio
import time
from types import TracebackType

from proxy.call import NEVER, Call, Deadline, Hold, NoRoom
from proxy.errors import CallerError, UpstreamError
from proxy.openai_format.estimate import Estimate
from proxy.providers.seam import Route, Target
from proxy.reply import Fetched
from proxy.resilience.attempt import Attempt
from proxy.resilience.budget import HedgeBudget
from proxy.resilience.circuit import Rejected
from proxy.resilience.hedge import Race
from proxy.resilience.means import Means
from proxy.resilience.plan import Plan
from proxy.resilience.policy import Option
from proxy.resilience.standing import Limiter, Standing
from proxy.telemetry import CallRecord


class Walk:
    """One call's way along its targets.

    Entering it tries them in order, the same ones again when none is left, and gives the first reply that has content;
    what that reply needs (connection, clocks, place) lives until it is left.

    Args:
        tokens: what the call will use, as far as that can be told before.

    Raises on entering:
        ProxyError: of the last attempt, when none succeeded; LimitReached, CircuitsOpen when none was possible.
    """

    _attempt: Attempt | None = None
    _made: Plan | None = None

    def __init__(
        self,
        call: Call,
        route: Route,
        means: Means,
        deadline: Deadline,
        tokens: Estimate,
        record: CallRecord,
    ) -> None:
        self._call = call
        self._route = route
        self._means = means
        self._deadline = deadline
        self._tokens = tokens
        self._record = record
        record.tokens = tokens
        self._hedging = means.hedging(route) if route.hedge is not None else None

    @property
    def _plan(self) -> Plan:
        """Made when something does not go as usual."""
        if self._made is None:
            self._made = Plan(self._route, self._means.standings, self._tokens, self._means.clock)
        return self._made

    def extend(self, deadline: Deadline) -> None:
        """Let the call last longer, for others who wait for the same; an attempt that is being made, too."""
        self._deadline = deadline
        if self._attempt is not None:
            self._attempt.extend(deadline)

    async def __aenter__(self) -> Fetched:
        try:
            return await self._walk()
        except BaseException:
            self._free()
            raise
        finally:
            if self._made is not None:
                for place, limit in self._made.full.items():
                    self._means.telemetry.limited("upstream", self._made.target(place).name, limit)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamError) and self._attempt is not None:
            self._attempt.broke(error)
        self._free(drain=error is None)

    def _free(self, *, drain: bool = False) -> None:
        if self._attempt is not None:
            self._attempt.free(drain=drain)
            self._attempt = None

    async def _walk(self) -> Fetched:
        if self._route.copies is not None and self._means.mirrors is not None:
            self._means.mirrors.copy(self._call, self._route, self._means)
        first = self._usual()
        if first is not None:
            try:
                return await self._make(first, 0)
            except (UpstreamError, CallerError) as error:
                self._leave(0, error)
        plan, record = self._plan, self._record
        while True:
            left = self._deadline.whole - self._means.clock()
            option = plan.next(record.attempts, left)
            if option is None or (option.repeat and not self._may_repeat(option)):
                raise plan.give_up(left)
            if option.wait:
                await self._pause(option)
            attempt = await self._enter(option.place, plan.patience_at(option.place))
            if attempt is None:
                continue
            self._count(option)
            try:
                return await self._make(attempt, option.place)
            except (UpstreamError, CallerError) as error:
                self._leave(option.place, error)

    def _usual(self) -> Attempt | None:
        """An attempt at the first target, where nothing is known that speaks against it."""
        target = self._route.targets[0]
        standing = self._means.standings[target.name]
        if not standing.circuit(target).is_closed or (
            self._deadline.whole < NEVER and self._deadline.whole <= self._means.clock()
        ):
            return None
        if standing.pace.is_known and standing.pace.wait(target.model, self._tokens, self._means.clock()):
            return None
        return self._place(0)

    async def _make(self, attempt: Attempt, place: int) -> Fetched:
        """Make an attempt, or two at once where the route says so."""
        self._attempt = attempt
        if self._hedging is not None:
            return await self._race(attempt, place, self._hedging)
        try:
            reply = await attempt.run()
        finally:
            self._record.upstream_seconds += attempt.seconds
        attempt.claim(reply)
        if not self._call.stream:
            self._attempt = None  # it is over
        return reply

    def _leave(self, place: int, error: UpstreamError | CallerError) -> None:
        """What follows from the failure of an attempt.

        Raises:
            ProxyError: nothing.
        """
        self._free()
        if isinstance(error, UpstreamError):
            self._plan.leave(place, error, self._means.chance())
        elif self._plan.failed is None:
            raise error
        else:
            self._plan.drop(place)  # it cannot carry the call; what failed before is what the caller must know

    async def _race(self, first: Attempt, place: int, budget: HedgeBudget) -> Fetched:
        """Make the attempt, and a second one on another target if the first lets wait.

        Raises:
            UpstreamError: both have failed; this is the first one's failure, the other's is known to the plan.
        """
        plan, record, telemetry = self._plan, self._record, self._means.telemetry
        backups: list[int] = []

        async def backup() -> Attempt | None:
            other = plan.backup(place, record.attempts)
            if other is None or first.is_trial or not budget.allows:
                return None
            second = await self._enter(other, patience=0.0)
            if second is not None:
                backups.append(other)
                budget.spend()
            return second

        race, began = Race(first, self._hedge_after(first), backup), time.perf_counter()
        try:
            won = await race.run()
        finally:
            record.upstream_seconds += time.perf_counter() - began
        if race.second is not None:
            telemetry.hedged(self._route.name, "failed" if won is None else "won" if won[0] is race.second else "lost")
        if won is None:
            for attempt, error in race.failures:
                if attempt is not first and isinstance(error, UpstreamError):
                    plan.leave(backups[0], error, self._means.chance())
                elif attempt is not first:
                    plan.drop(backups[0])
            raise next(error for attempt, error in race.failures if attempt is first)
        winner, reply = won
        loser = race.second if winner is first else first
        if loser is not None and all(loser is not attempt for attempt, _ in race.failures):
            target = loser.target
            telemetry.wasted(target.name, telemetry.ledger.lost(record, target.name, target.model, target.label))
        self._attempt = winner
        winner.name(reply.dropped)
        winner.claim(reply)
        return reply

    def _hedge_after(self, first: Attempt) -> float | None:
        """Seconds until a second attempt; None: it cannot be told yet."""
        hedge = self._route.hedge
        if hedge is not None and hedge.after_seconds is not None:
            return hedge.after_seconds
        return first.standing.latency[self._call.stream].p95

    def _may_repeat(self, option: Option) -> bool:
        standing = self._means.standings[self._plan.target(option.place).name]
        if standing.budget.allows(self._route.retry.budget, self._means.clock()):
            return True
        self._means.telemetry.budget_exhausted(standing.name)
        return False

    def _count(self, option: Option) -> None:
        """Say what an attempt is that follows another."""
        if self._plan.failed is None:
            return
        place, error = self._plan.failed
        if option.repeat:
            self._plan.repeats += 1
            name = self._plan.target(option.place).name
            self._means.standings[name].budget.spend(self._means.clock())
            self._means.telemetry.retried(name, error.reason)
        else:
            self._means.telemetry.failed_over(self._route.name, self._plan.target(place).name, error.reason)

    async def _pause(self, option: Option) -> None:
        """Wait until an option is one."""
        self._record.phase = "back_off" if option.repeat else "queue"
        began = time.perf_counter()
        try:
            await asyncio.sleep(option.wait)
        finally:
            waited = time.perf_counter() - began
            self._record.waited_seconds += waited
            if not option.repeat:
                self._plan.waited += waited

    async def _enter(self, place: int, patience: float = NEVER) -> Attempt | None:
        """An attempt at a target; None where there is no room, or its circuit has just closed its door."""
        target = self._plan.target(place)
        standing = self._means.standings[target.name]
        hold: Hold | None = None
        if standing.limiter is not None:
            taken = standing.limiter.take(self._tokens)
            if isinstance(taken, NoRoom):
                taken = await self._queue(standing, standing.limiter, patience)
            if isinstance(taken, NoRoom):
                self._plan.no_room(place, taken)
                return None
            hold = taken
        return self._begin(target, standing, hold)

    def _place(self, place: int) -> Attempt | None:
        """The same at once, or not at all."""
        target = self._route.targets[place]
        standing = self._means.standings[target.name]
        hold = standing.limiter.take(self._tokens) if standing.limiter is not None else None
        return None if isinstance(hold, NoRoom) else self._begin(target, standing, hold)

    def _begin(self, target: Target, standing: Standing, hold: Hold | None) -> Attempt | None:
        try:
            visit = standing.circuit(target).enter()
        except Rejected:
            if hold is not None:
                hold.cancel()
            return None
        standing.budget.attempted(self._means.clock())
        if standing.pace.is_known:
            standing.pace.sent(target.model, self._tokens)
        return Attempt(self._call, target, standing, visit, hold, self._deadline, self._record, self._means.telemetry)

    async def _queue(self, standing: Standing, limiter: Limiter, patience: float) -> Hold | NoRoom:
        """Wait for room under an upstream's limits."""
        self._record.phase = "queue"
        began = time.perf_counter()
        patience = max(0.0, min(patience, self._plan.patience, self._deadline.whole - self._means.clock()))
        try:
            return await limiter.hold(self._call.caller.name or "", self._tokens, patience)
        finally:
            waited = time.perf_counter() - began
            self._plan.waited += waited
            self._record.waited_seconds += waited
            self._means.telemetry.queued("upstream", standing.name, waited)
