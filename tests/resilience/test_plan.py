"""A plan says which target comes next, when, and what the caller is told when none is left."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from proxy.call import NoRoom
from proxy.config import Retry, Upstream
from proxy.errors import (
    Broken,
    ContentRefused,
    ContextExceeded,
    CredentialRefused,
    Limited,
    ModelMissing,
    Overloaded,
    PaidOut,
    RequestRefused,
    TooSlow,
    UpstreamError,
)
from proxy.providers.seam import Route, Target
from proxy.resilience.plan import Plan
from tests.clock import Clock
from tests.resilience.standings import Scripted, Standings, standings

NEVER = float("inf")
UPSTREAM = Upstream(provider="openai")
LONG = 1e6


class Scene:
    """A plan over `a`, `b`, `c`, as many as are wanted, whose standings are scripted."""

    def __init__(self, targets: str = "abc", **route: Any) -> None:
        self.clock = Clock()
        self.standings: Standings = standings(targets)
        retry = Retry(**{name: route.pop(name) for name in list(route) if name in Retry.model_fields})
        places = tuple(Target(name, UPSTREAM, f"model-{name}") for name in targets)
        self.plan = Plan(Route("r", places, retry, **route), cast(Any, self.standings), lambda: 100, self.clock)
        self.attempts = 0

    def __getitem__(self, name: str) -> Scripted:
        return self.standings[name]

    def next(self, time_left: float = LONG) -> tuple[str, float, bool] | None:
        """What comes next: the target's name, the wait, and whether it is a repeat."""
        option = self.plan.next(self.attempts, time_left)
        return (self.plan.target(option.place).name, option.wait, option.repeat) if option is not None else None

    def fail(self, error: UpstreamError, chance: float = 0.0) -> str | None:
        """The next attempt fails so; its target, or None when there was none to be made."""
        option = self.plan.next(self.attempts, LONG)
        if option is None:
            return None
        self.clock.now += option.wait
        self.attempts += 1
        self.plan.repeats += option.repeat
        self.plan.leave(option.place, error, chance)
        return self.plan.target(option.place).name

    def walk(self, error: Callable[[], UpstreamError]) -> str:
        """All the attempts that there are, if every one fails so."""
        return "".join(iter(lambda: self.fail(error()) or "", ""))


def broken() -> UpstreamError:
    return Broken("it failed")


@pytest.mark.parametrize(
    ("targets", "attempts", "walk"),
    [
        ("abc", None, "abc"),
        ("a", None, "aaa"),
        ("ab", None, "aba"),
        ("abcde", None, "abcde"),
        ("ab", 5, "ababa"),
        ("abc", 2, "ab"),
        ("abc", 1, "a"),
        ("a", 1, "a"),
    ],
)
def test_targets_come_in_their_order(targets: str, attempts: int | None, walk: str) -> None:
    """Each once, again only when none is left; at most `attempts`, by default 3 or one for each target."""
    assert Scene(targets, attempts=attempts).walk(broken) == walk


@pytest.mark.parametrize(
    ("error", "walk"),
    [
        (lambda: TooSlow(clock="first_token"), "ab"),
        (lambda: TooSlow(clock="total"), "ab"),
        (lambda: ModelMissing("none"), "ab"),
        (lambda: CredentialRefused("no"), "ab"),
        (lambda: PaidOut("empty"), "ab"),
        (lambda: TooSlow(clock="connect"), "ababa"),
        (lambda: TooSlow(clock="upstream"), "ababa"),
        (lambda: Overloaded("busy"), "ababa"),
        (lambda: Limited("slowly"), "ababa"),
    ],
)
def test_what_is_never_repeated(error: Callable[[], UpstreamError], walk: str) -> None:
    """A repeat that would bill twice, or cannot help, is not made; another target is tried."""
    assert Scene("ab", attempts=5).walk(error) == walk


@pytest.mark.parametrize(("says", "walk"), [(False, "a"), (True, "aaa"), (None, "aaa")])
def test_an_upstream_may_forbid_repeats(says: bool | None, walk: str) -> None:
    """Its x-should-retry: false is obeyed."""

    def error() -> UpstreamError:
        failed = Overloaded("busy")
        failed.repeat = says
        return failed

    assert Scene("a").walk(error) == walk


def test_a_refusal_ends_the_walk() -> None:
    """What the caller must change is raised at once, as it is."""
    scene, error = Scene(), RequestRefused("wrong")
    with pytest.raises(RequestRefused) as caught:
        scene.fail(error)
    assert caught.value is error
    assert "x-should-retry" not in error.headers


FALLBACK = {"fallback_from": 2, "fallback_on": ("context",)}


def test_a_refusal_may_lead_to_the_fallbacks() -> None:
    """By `fallback_on`, and then to nothing but fallbacks: neither untried targets nor repeats of failed ones."""
    scene = Scene("abcd", attempts=9, **FALLBACK)
    assert scene.fail(broken()) == "a"
    assert scene.fail(ContextExceeded("too long")) == "b"
    assert scene.next() == ("c", 0.0, False)
    assert scene.fail(broken()) == "c"
    assert scene.fail(ContextExceeded("too long")) == "d"
    assert scene.next() is None
    scene = Scene("abcd", **FALLBACK)
    assert scene.fail(ContextExceeded("too long")) == "a"
    assert scene.next() == ("c", 0.0, False)


@pytest.mark.parametrize(("error", "on"), [(ContextExceeded, ("policy",)), (ContentRefused, ("context",))])
def test_other_refusals_do_not(error: type[UpstreamError], on: tuple[str, ...]) -> None:
    """Each refusal has its own word."""
    with pytest.raises(error):
        Scene(fallback_from=1, fallback_on=on).fail(error("no"))
    scene = Scene(fallback_from=1, fallback_on=("context", "policy"))
    assert scene.fail(error("no")) == "a"
    assert scene.next() == ("b", 0.0, False)


def test_failures_reach_fallbacks_without_a_word() -> None:
    """After the targets, in order."""
    assert Scene("abcd", **FALLBACK).walk(broken) == "abcd"


def test_the_back_off_doubles() -> None:
    """A repeat waits for a random part of a bound that doubles with each."""
    scene = Scene("a", attempts=5, first_wait_seconds=1.0)
    waits = []
    scene.fail(broken(), 0.5)
    for _ in range(3):
        option = scene.next()
        assert option is not None
        waits.append(option[1])
        scene.fail(broken(), 0.5)
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("error", [Limited, Overloaded, Broken])
def test_retry_after_is_a_floor(error: type[UpstreamError]) -> None:
    """Of the wait before a repeat; a longer back-off stays."""
    scene = Scene("a", first_wait_seconds=4.0)
    scene.fail(error("later", retry_after=2.0))
    assert scene.next() == ("a", 2.0, True)
    scene.clock.now += 1.5
    assert scene.next() == ("a", 0.5, True)
    scene = Scene("a", first_wait_seconds=4.0)
    scene.fail(error("later", retry_after=2.0), 0.75)
    assert scene.next() == ("a", 3.0, True)


def test_the_repeat_that_is_free_soonest() -> None:
    """Not the target that asked for patience."""
    scene = Scene("ab", attempts=4)
    scene.fail(Limited("later", retry_after=3.0))
    scene.fail(broken())
    assert scene.next() == ("b", 0.0, True)


@pytest.mark.parametrize(("wait", "expected"), [(5.0, ("a", 5.0, True)), (5.25, None)])
def test_longer_than_the_longest_wait_is_not_waited(wait: float, expected: object) -> None:
    """The caller hears of the failure instead."""
    scene = Scene("a", longest_wait_seconds=5.0)
    scene.fail(Limited("later", retry_after=wait))
    assert scene.next() == expected


def test_nothing_begins_after_the_calls_time() -> None:
    """Neither an attempt now nor one that would have to wait until then."""
    scene = Scene("a")
    assert scene.next(0.0) is None
    assert scene.next(-1.0) is None
    assert scene.next(0.001) == ("a", 0.0, False)
    scene.fail(Limited("later", retry_after=2.0))
    assert scene.next(2.0) is None
    assert scene.next(2.25) == ("a", 2.0, True)


def test_open_circuits_are_skipped() -> None:
    """They are no attempts, and not waited for; a circuit that opened is not tried again either."""
    scene = Scene(longest_wait_seconds=60.0)
    scene["a"].circuit_wait = scene["c"].circuit_wait = 0.001
    assert scene.next() == ("b", 0.0, False)
    assert scene.fail(broken()) == "b"
    scene["b"].circuit_wait = 30.0
    assert scene.next() is None
    scene["c"].circuit_wait = 0.0
    assert scene.next() == ("c", 0.0, False)


def test_a_free_target_comes_before_one_that_must_wait() -> None:
    """Whether the upstream's limits or ours make it wait; if all do, the soonest, within the longest wait."""
    scene = Scene(longest_wait_seconds=5.0)
    scene["a"].pace_wait = 2.0
    scene["b"].room = NoRoom("requests", 1.0)
    assert scene.next() == ("c", 0.0, False)
    scene["c"].pace_wait = 5.5
    assert scene.next() == ("b", 1.0, False)
    scene["b"].room = NoRoom("concurrent", NEVER)
    assert scene.next() == ("a", 2.0, False)
    scene["a"].pace_wait = 5.5
    assert scene.next() is None


def test_a_share_is_asked_for_before_the_next_target() -> None:
    """Where the fleet may have room it is asked, once and without waiting; then it is a target that must wait."""
    scene = Scene("ab", longest_wait_seconds=5.0)
    scene["a"].room, scene["a"].may_ask = NoRoom("concurrent", 0.001), True
    assert scene.next() == ("a", 0.0, False)
    assert scene.plan.patience_at(0) == 0.0
    scene.plan.no_room(0, NoRoom("concurrent", NEVER))
    assert scene.next() == ("b", 0.0, False)
    scene["b"].circuit_wait = 30.0
    assert scene.next() == ("a", 0.001, False)
    assert scene.plan.patience_at(0) == 5.0


def test_limits_are_asked_for_the_right_call() -> None:
    """The upstream's pace by its model, and both by the call's estimate."""
    scene = Scene("b")
    scene.next()
    assert scene["b"].asked == [("pace", "model-b", 100, scene.clock.now), ("limiter", 100)]


def test_patience_is_used_up() -> None:
    """All waits for room of a call together are bounded; waits before repeats are not among them."""
    scene = Scene("a", longest_wait_seconds=5.0)
    assert scene.plan.patience == 5.0
    scene["a"].pace_wait = 3.0
    scene.plan.waited = 2.0
    assert scene.next() == ("a", 3.0, False)
    scene.plan.waited = 2.5
    assert scene.next() is None
    scene.plan.waited = 9.0
    assert scene.plan.patience == 0.0


@pytest.mark.parametrize(("refusal", "after"), [(NoRoom("tokens", 2.0), "b"), (NoRoom("concurrent", NEVER), "b")])
def test_no_room_is_remembered(refusal: NoRoom, after: str) -> None:
    """A target that has refused the call is left alone for the time that it said."""
    scene = Scene("ab", attempts=9)
    scene.plan.no_room(0, refusal)
    assert scene.next() == (after, 0.0, False)
    scene.plan.drop(1)
    assert scene.next() == (None if refusal.wait == NEVER else ("a", 2.0, False))


def test_what_is_dropped_is_not_tried() -> None:
    """Neither for the first time nor again."""
    scene = Scene("ab")
    scene.plan.drop(0)
    assert scene.fail(broken()) == "b"
    scene.plan.drop(1)
    assert scene.next() is None


def test_a_backup_is_another_untried_target_in_good_standing() -> None:
    """Closed, free at once, within the attempts; the one that is being tried is none."""
    scene = Scene("abc")
    assert scene.plan.backup(0, 1) == 1
    assert scene.plan.backup(1, 1) == 0
    assert scene.plan.backup(0, 3) is None
    scene["b"].is_closed = False
    assert scene.plan.backup(0, 1) == 2
    scene["c"].pace_wait = 0.5
    assert scene.plan.backup(0, 1) is None
    scene["b"].is_closed = True
    assert scene.plan.backup(0, 1) == 1
    assert scene.fail(broken()) == "a"
    assert scene.plan.backup(1, 1) is None, "a has been tried"
