"""Circuits of several sidecars over a real Redis: what one learns all know, and Redis itself stops nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.errors import Broken
from proxy.resilience.circuit import Circuit, HalfOpened, Opened
from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer
from tests.waiting import until

ROUTES = [
    {
        "name": "ab",
        "targets": [{"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "vllm", "model": "m"}],
        "retry": {"attempts": 2},
    }
]
KEY = "octet:circuit:openai"
Fleet = Callable[..., Awaitable[list[Sidecar]]]


@pytest.fixture
def fleet(start: Start, redis: RedisServer) -> Fleet:
    """Starts sidecars that share state; they have heard of each other when it returns."""

    async def started(count: int = 3, **circuit: Any) -> list[Sidecar]:
        settings = {"openai": {"circuit": {"open_seconds": 3600.0, **circuit}}}
        tree: dict[str, Any] = {
            "routes": ROUTES,
            "upstreams": settings,
            "redis": {"url": redis.url, "timeout_seconds": 5.0},
        }
        sidecars = [await start(**tree) for _ in range(count)]
        await until(lambda: all(not link(sidecar)._away for sidecar in sidecars))
        return sidecars

    return started


def circuit(sidecar: Sidecar) -> Circuit:
    return sidecar.app.upstreams.now.circuits.by_upstream["openai"][0]


def link(sidecar: Sidecar) -> Any:
    """What ties the sidecar's circuit to the fleet."""
    return circuit(sidecar).fleet


def states(sidecars: list[Sidecar]) -> list[str | None]:
    return [sidecar.app.upstreams.now.circuits.state("openai") for sidecar in sidecars]


def all_are(sidecars: list[Sidecar], state: str) -> Callable[[], bool]:
    return lambda: set(states(sidecars)) == {state}


async def pass_open_time(redis: RedisServer, sidecars: list[Sidecar]) -> None:
    """The open period is over, for Redis and everybody."""
    await redis.client.hset(KEY, "until", "0")
    for sidecar in sidecars:
        state = circuit(sidecar).current
        assert isinstance(state, Opened)
        state.until = circuit(sidecar).clock()


async def test_failures_of_all_open_it_for_all(fleet: Fleet, simulator: Simulator) -> None:
    """Five failures spread over three processes are enough; no process has seen five itself."""
    sidecars = await fleet()
    simulator.always("openai", Behaviour(status=500))
    for number in range(5):
        assert (await sidecars[number % 3].chat("any")).status == 200
    await until(all_are(sidecars, "open"))
    assert simulator.report.dialects["openai"].calls == 5
    for sidecar in sidecars:
        assert (await sidecar.chat("any")).headers["x-octet-attempts"] == "1"
        assert await sidecar.metric("octet_circuit_transitions_total", upstream="openai", state="open") == 1
    assert simulator.report.dialects["openai"].calls == 5


async def test_one_set_of_trials_for_all(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """When the open time is over 60 calls at all processes make three trial calls, and then it is closed for all."""
    sidecars = await fleet()
    circuit(sidecars[0]).open()
    await until(all_are(sidecars, "open"))
    await pass_open_time(redis, sidecars)
    simulator.always("openai", Behaviour(stall="before_headers"))

    async def call(number: int) -> None:
        await (await sidecars[number % 3].chat("any")).read()

    for number in range(3):
        await call(number)  # nobody waits for Redis: the first calls go elsewhere
    await until(lambda: "half_open" in states(sidecars))
    trials = [asyncio.create_task(call(number)) for number in range(60)]
    await simulator.report.wait_for(lambda report: report.dialects["openai"].calls == 3)
    await asyncio.wait(trials, return_when=asyncio.ALL_COMPLETED, timeout=1)
    assert len([trial for trial in trials if trial.done()]) == 57
    assert simulator.report.dialects["openai"].calls == 3
    assert states(sidecars).count("half_open") == 1
    for trial in trials:
        trial.cancel()
    await asyncio.wait(trials)
    simulator.always("openai", None)
    await until(lambda: any(isinstance(circuit(each).current, HalfOpened) for each in sidecars))
    while not all_are(sidecars, "closed")():
        await asyncio.gather(*(call(number) for number in range(3)))
    assert simulator.report.dialects["openai"].calls >= 6


async def test_a_failed_trial_opens_it_for_all(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """One trial is enough to know."""
    sidecars = await fleet(2)
    circuit(sidecars[0]).open()
    await until(all_are(sidecars, "open"))
    await pass_open_time(redis, sidecars)
    simulator.always("openai", Behaviour(status=500))
    while simulator.report.dialects["openai"].calls == 0:
        await asyncio.gather(*(each.chat("any") for each in sidecars))
    await until(all_are(sidecars, "open"))
    assert simulator.report.dialects["openai"].calls == 1
    await until(lambda: all(circuit(each).wait() > 3000 for each in sidecars))


async def test_a_newcomer_learns_what_holds(fleet: Fleet, start: Start, redis: RedisServer) -> None:
    """A process that starts while the circuit is open does not ask the upstream."""
    (first,) = await fleet(1)
    circuit(first).open()
    await until(lambda: link(first)._generation != "0")
    (second,) = await fleet(1)
    await until(all_are([second], "open"))


async def test_an_operators_word_is_for_all(fleet: Fleet) -> None:
    """Held open and reset at one process, it is at all."""
    sidecars = await fleet(2)
    sidecars[0].app.upstreams.hold_open("openai", None)
    await until(all_are(sidecars, "open"))
    state = circuit(sidecars[1]).current
    assert isinstance(state, Opened)
    assert state.held
    sidecars[1].app.upstreams.reset("openai")
    await until(all_are(sidecars, "closed"))


async def test_a_dead_leaseholder(fleet: Fleet, redis: RedisServer) -> None:
    """Trial calls that were leased to a process that is gone go to another when the lease is over."""
    sidecars = await fleet(2)
    circuit(sidecars[0]).open()
    await until(all_are(sidecars, "open"))
    await redis.client.hset(KEY, mapping={"state": "1", "holder": "gone", "generation": "1", "until": "99999999999999"})
    link(sidecars[1])._errand.ask()
    await until(lambda: link(sidecars[1])._generation == "1")
    state = circuit(sidecars[1]).current
    assert isinstance(state, Opened)
    await redis.client.hset(KEY, "until", "0")
    state.until = circuit(sidecars[1]).clock()
    assert circuit(sidecars[1]).wait() > 0
    await until(lambda: isinstance(circuit(sidecars[1]).current, HalfOpened))


async def test_redis_is_gone_and_comes_back_empty(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """Without Redis each decides by itself, trials included; what they know makes the new Redis' state."""
    sidecars = await fleet(2)
    await redis.kill()
    simulator.always("openai", Behaviour(status=500))
    for _ in range(5):
        assert (await sidecars[0].chat("any")).status == 200
    assert states(sidecars) == ["open", "closed"]
    await until(lambda: not any(each.app.upstreams._shared.up for each in sidecars))  # type: ignore[union-attr]
    assert await sidecars[0].metric("octet_redis_up") == 0
    await redis.start()
    await until(all_are(sidecars, "open"), patience=10)
    assert await sidecars[0].metric("octet_redis_up") == 1


async def test_without_redis_trials_are_ones_own(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """A process that cannot be leased trial calls makes them."""
    (sidecar,) = await fleet(1)
    await redis.kill()
    await until(lambda: not sidecar.app.upstreams._shared.up)  # type: ignore[union-attr]
    circuit(sidecar).open(0.0)
    assert (await sidecar.chat("any")).headers["x-octet-upstream"] == "openai"
    assert states([sidecar]) == ["half_open"]


async def test_a_redis_that_is_frozen(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """Calls go on while it is; afterwards the state is shared again."""
    sidecars = await fleet(2)
    redis.freeze()
    simulator.always("openai", Behaviour(status=500))
    for _ in range(6):
        assert (await sidecars[0].chat("any")).status == 200
    assert states(sidecars) == ["open", "closed"]
    redis.thaw()
    await until(all_are(sidecars, "open"), patience=10)


async def test_an_emptied_redis(fleet: Fleet, redis: RedisServer) -> None:
    """Whatever was forgotten, the processes agree again, and a later change reaches all of them."""
    sidecars = await fleet(2)
    circuit(sidecars[0]).open()
    await until(all_are(sidecars, "open"))
    await redis.client.flushall()
    link(sidecars[1])._errand.ask()
    await until(lambda: link(sidecars[0])._generation == link(sidecars[1])._generation)
    assert states(sidecars) == ["open", "open"]
    circuit(sidecars[0]).reset()
    await until(all_are(sidecars, "closed"))


@pytest.mark.parametrize("command", [("SET", KEY, "theirs"), ("CONFIG", "SET", "maxmemory", "1")])
async def test_a_redis_that_will_not(
    fleet: Fleet, simulator: Simulator, redis: RedisServer, command: tuple[str, ...]
) -> None:
    """A foreign value under our key, or no memory: it is left alone, and the process decides by itself."""
    (sidecar,) = await fleet(1)
    await redis.client.delete(KEY)
    answer: Any = redis.client.execute_command  # redis-py leaves it without types
    await answer(*command)
    simulator.always("openai", Behaviour(status=500))
    for _ in range(5):
        assert (await sidecar.chat("any")).status == 200
    assert states([sidecar]) == ["open"]
    await until(lambda: link(sidecar)._away)
    if command[0] == "SET":
        assert await redis.client.get(KEY) == b"theirs"
    circuit(sidecar).open(0.0)
    assert circuit(sidecar).wait() == 0


async def test_a_wrong_password(
    start: Start, simulator: Simulator, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, without the password, and calls are served."""
    await redis.client.config_set("requirepass", "right")
    url = redis.url.replace("redis://", "redis://:wrong-secret@")
    sidecar = await start(routes=ROUTES, redis={"url": url})
    await until(lambda: "refuses the password" in caplog.text)
    assert (await sidecar.chat("any")).status == 200
    assert "wrong-secret" not in caplog.text
    assert sidecar.app.upstreams._shared is not None
    assert not sidecar.app.upstreams._shared.up


async def test_names_of_other_namespaces(start: Start, redis: RedisServer) -> None:
    """Sidecars of another namespace share nothing with these."""
    first = await start(routes=ROUTES, redis={"url": redis.url, "namespace": "blue"})
    second = await start(routes=ROUTES, redis={"url": redis.url, "namespace": "green"})
    await until(lambda: not link(first)._away and not link(second)._away)
    first.app.upstreams.hold_open("openai", None)
    await until(lambda: link(first)._generation != "0")
    assert states([first, second]) == ["open", "closed"]
    assert set(await redis.client.keys("*openai")) == {b"blue:circuit:openai", b"green:circuit:openai"}


@pytest.mark.parametrize("state", ["7", "nan", "-1", "1.5", "x", ""])
async def test_garbage_as_a_state(fleet: Fleet, redis: RedisServer, state: str) -> None:
    """It is none of ours: what the process knows takes its place."""
    (sidecar,) = await fleet(1)
    circuit(sidecar).open()
    await until(lambda: link(sidecar)._generation != "0")
    await redis.client.hset(KEY, mapping={"state": state, "generation": "x", "until": "nan"})
    await link(sidecar)._errand.ask()
    await until(lambda: not link(sidecar)._errand._task)
    assert await redis.client.hget(KEY, "state") == b"2"
    assert states([sidecar]) == ["open"]


async def test_a_hold_outlives_an_emptied_redis(fleet: Fleet, redis: RedisServer) -> None:
    """Also when a process that knows nothing of it speaks first."""
    (first,) = await fleet(1)
    first.app.upstreams.hold_open("openai", None)
    await until(lambda: link(first)._generation != "0")
    await redis.client.flushall()
    (second,) = await fleet(1)
    await link(first)._errand.ask()
    await until(all_are([first, second], "open"))
    state = circuit(second).current
    assert isinstance(state, Opened)
    assert state.held


async def test_a_redis_that_will_not_is_told_and_heals(
    fleet: Fleet, redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`octet_redis_up` is 0 meanwhile; there is one warning, and without any call one line when it is well again."""
    monkeypatch.setattr("proxy.shared_state.state.LOOK_SECONDS", 0.01)
    (sidecar,) = await fleet(1)
    shared: Any = sidecar.app.upstreams._shared
    caplog.set_level("INFO", "octet")
    for times in (1, 2):
        await redis.client.config_set("maxmemory", "1")
        await link(sidecar)._errand.ask()
        await link(sidecar)._errand.ask()
        assert await sidecar.metric("octet_redis_up") == 0
        await redis.client.config_set("maxmemory", "0")
        await until(lambda: shared._well)
        assert await sidecar.metric("octet_redis_up") == 1
        assert caplog.text.count("will not do what it is asked") == times
        assert caplog.text.count("Redis is there") == times


async def test_many_circuits_are_no_flood(start: Start, redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """However many links begin at once, they wait for one another, and Redis is not taken for gone."""
    targets = [{"upstream": "openai", "model": f"m{number}"} for number in range(400)]
    settings = {"openai": {"circuit": {"per": "model"}}}
    sidecar = await start(
        routes=[{"match": {"model": f"a{n}"}, "targets": [target]} for n, target in enumerate(targets)],
        upstreams=settings,
        redis={"url": redis.url},
    )
    links: list[Any] = list(sidecar.app.upstreams._links.values())
    await until(lambda: not any(each._away for each in links), patience=20)
    assert len(links) > 400
    assert "is not there" not in caplog.text


@pytest.mark.parametrize(("says", "state"), [(Broken("it failed"), "open"), (None, "closed")], ids=["failed", "good"])
async def test_trials_made_while_redis_was_away(
    fleet: Fleet, redis: RedisServer, says: Broken | None, state: str
) -> None:
    """What one's own trial calls have shown counts, when what Redis knows is over: nothing is tried a second time."""
    (sidecar,) = await fleet(1, trial_calls=1)
    circuit(sidecar).open()
    await until(lambda: link(sidecar)._generation != "0" and not link(sidecar)._errand._task)
    await redis.client.hset(KEY, "until", "0")
    shared = sidecar.app.upstreams._shared
    assert shared is not None
    shared.up = False
    circuit(sidecar).half_open()
    circuit(sidecar).enter().judge(says)
    assert states([sidecar]) == [state]
    shared.up = True
    await link(sidecar)._errand.ask()
    assert states([sidecar]) == [state]
    assert await redis.client.hget(KEY, "state") == (b"2" if says else b"0")
    assert circuit(sidecar).wait() == 0 if says is None else circuit(sidecar).wait() > 3000
