"""Which targets of a route a call may still try, when, and why not."""

from collections.abc import Callable, Iterator, Mapping

from proxy.call import NEVER, NoRoom
from proxy.errors import NO_RETRY, CircuitsOpen, Limited, LimitReached, ProxyError, TooSlow, UpstreamError
from proxy.providers.seam import Route, Target
from proxy.resilience.policy import Option, back_off, choose, fault_of
from proxy.resilience.standing import Standing, Tokens

LEAST_ATTEMPTS = 3
AT_ONCE = 0.001  # seconds; a share that must be asked for
UNKNOWN_WAIT = 1.0  # seconds, told to a caller when nobody can tell


class Plan:
    """What one call has tried, and what is left to it.

    Args:
        tokens: the call's estimate.
        clock: seconds that never go back.
        dry: it is only asked what would be tried; nothing changes by it.
    """

    def __init__(
        self,
        route: Route,
        standings: Mapping[str, Standing],
        tokens: Tokens,
        clock: Callable[[], float],
        *,
        dry: bool = False,
    ) -> None:
        self._dry = dry
        self.most_attempts = route.retry.attempts or max(LEAST_ATTEMPTS, len(route.targets))
        self.waited = 0.0  # for room, in seconds
        self.failed: tuple[int, UpstreamError] | None = None  # the last attempt: at which place, and why
        self.repeats = 0
        self._route = route
        self._standings = standings
        self._tokens = tokens
        self._clock = clock
        self._untried = list(range(len(route.targets)))
        self._again: list[int] = []  # places that may be tried again
        self._not_before: dict[int, float] = {}  # by place
        self._back_off_until = 0.0
        self._no_room: dict[int, NoRoom] = {}  # by place
        self._asks = set[int]()  # places that count as free until their fleet's share has been asked for
        self._asked = set[int]()  # and those where it has been
        self.full: dict[int, str] = {}  # by place: the limit that was found used up

    def target(self, place: int) -> Target:
        return self._route.targets[place]

    @property
    def patience(self) -> float:
        """Seconds that may still be waited for room."""
        return max(self._route.retry.longest_wait_seconds - self.waited, 0.0)

    def patience_at(self, place: int) -> float:
        """The same at one target: none, where it is only asked whether there is room, and others may be free."""
        return 0.0 if place in self._asks else self.patience

    def next(self, attempts: int, time_left: float) -> Option | None:
        """What to try next; None: nothing is left, or not in time.

        Args:
            attempts: those made.
        """
        if attempts >= self.most_attempts or time_left <= 0:
            return None
        return choose(self._options(), self._route.retry.longest_wait_seconds, time_left)

    def backup(self, place: int, attempts: int) -> int | None:
        """An untried target that is free and in good standing, beside the one that is being tried."""
        if attempts >= self.most_attempts:
            return None
        now = self._clock()
        return next((each for each in self._untried if each != place and self._is_good(each, now)), None)

    def _is_good(self, place: int, now: float) -> bool:
        target = self.target(place)
        circuit = self._standings[target.name].circuit(target)
        return circuit.is_closed and self._wait(place, now) <= AT_ONCE

    def drop(self, place: int) -> None:
        """A target is not to be tried, or not again."""
        for places in (self._untried, self._again):
            if place in places:
                places.remove(place)

    def leave(self, place: int, error: UpstreamError, chance: float) -> None:
        """What follows from the failure of an attempt.

        Args:
            chance: uniform in [0, 1).

        Raises:
            UpstreamError: the failure; nothing follows.
        """
        fault, now = fault_of(error), self._clock()
        self.drop(place)
        self.failed = place, error
        if isinstance(fault.next_target, str):
            if fault.next_target not in self._route.fallback_on:
                raise self.give_up(NEVER)
            self._untried = [each for each in self._untried if each >= self._route.fallback_from]
            self._again.clear()
        elif not fault.next_target:
            raise self.give_up(NEVER)
        if fault.repeats and error.repeat is not False:
            self._again.append(place)
            if error.retry_after is not None:
                self._not_before[place] = now + error.retry_after
        self._back_off_until = now + back_off(self._route.retry, self.repeats, chance)

    def no_room(self, place: int, refusal: NoRoom) -> None:
        """Limits have refused the call at a target; where a share was asked for alone, it may still be waited for."""
        self.full[place] = refusal.limit
        if place in self._asks:
            self._asked.add(place)
            return
        self._no_room[place] = refusal
        self._not_before[place] = self._clock() + refusal.wait

    def give_up(self, time_left: float) -> ProxyError:
        """What the caller must know when nothing is left to try."""
        if self.failed is not None:
            _, error = self.failed
            if fault_of(error).final:
                error.headers = {**error.headers, **NO_RETRY}
            return error
        refusals = [refusal for place in self._untried if (refusal := self._refusal(place)) is not None]
        if time_left <= 0 or not refusals:
            return TooSlow(clock="deadline", headers=NO_RETRY)
        return min(refusals, key=lambda refusal: refusal.retry_after or 0.0)

    def _options(self) -> Iterator[Option]:
        """Every target that may be tried, those first that have not been."""
        patience, now = self.patience, self._clock()
        for place in self._untried:
            wait = self._wait(place, now)
            if wait <= patience:
                yield Option(place, wait, repeat=False)
        for place in self._again:
            yield Option(place, max(self._wait(place, now), self._back_off_until - now, 0.0), repeat=True)

    def _wait(self, place: int, now: float) -> float:
        """Seconds until a target may be tried; inf: not within this call."""
        target = self.target(place)
        standing = self._standings[target.name]
        if self._circuit_wait(standing, target) > 0:
            return NEVER
        wait = standing.pace.wait(target.model, self._tokens, now)
        if place in self._not_before:
            wait = max(wait, self._not_before[place] - now)
        limiter = standing.limiter
        refusal = limiter.refusal(self._tokens) if limiter is not None else None
        self._asks.discard(place)
        if limiter is not None and refusal is not None and place not in self._asked and limiter.may_ask(refusal):
            self._asks.add(place)
        elif refusal is not None:
            self.full[place] = refusal.limit
            wait = max(wait, refusal.wait)
        return max(wait, 0.0)

    def _circuit_wait(self, standing: Standing, target: Target) -> float:
        circuit = standing.circuit(target)
        return circuit.peek() if self._dry else circuit.wait()

    def obstacle(self, place: int) -> ProxyError | None:
        """Why a target cannot be tried at this moment; None: it can."""
        return self._refusal(place)

    def _refusal(self, place: int) -> CircuitsOpen | Limited | LimitReached | None:
        """Why a target cannot be tried."""
        target = self.target(place)
        standing = self._standings[target.name]
        wait = self._circuit_wait(standing, target)
        if wait > 0:
            text = "every upstream for this call is left alone for a while, after failures or by an operator"
            return CircuitsOpen(text, retry_after=wait)
        wait = standing.pace.wait(target.model, self._tokens, self._clock())
        if wait > 0:
            return Limited("the upstream's own rate limit is used up", retry_after=wait)
        refusal = self._no_room.get(place)
        if refusal is None and standing.limiter is not None:
            refusal = standing.limiter.refusal(self._tokens)
        if refusal is None:
            return None
        wait = refusal.wait if refusal.wait < NEVER else UNKNOWN_WAIT
        text = f"a limit of the upstream is used up (its limits.{refusal.key})"
        return LimitReached(text, retry_after=wait, limit=refusal.limit)
