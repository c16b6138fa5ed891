"""There is one circuit for each upstream, or each of its models, made and watched through purgatory."""

import asyncio
from typing import Any

import pytest
from purgatory.domain.messages.events import ContextChanged
from purgatory.service._async.repository import AsyncInMemoryRepository

from proxy.config import Circuit as Policy
from proxy.config import Upstream
from proxy.errors import Broken
from proxy.providers.seam import Target
from proxy.resilience.circuit import Circuit, Rejected
from proxy.resilience.circuits import Circuits, CircuitTable
from tests.clock import Clock

BY_MODEL = Upstream(provider="openai", circuit=Policy(per="model"))
AS_ONE = Upstream(provider="openai", circuit=Policy())
UPSTREAMS = {"gpu": BY_MODEL, "laptop": AS_ONE}
TARGETS = [("chat", "gpu", "small"), ("chat", "gpu", "large"), ("other", "gpu", "small"), ("chat", "laptop", "small")]


class Told:
    """Who watches: what was told, and the state that the circuit had by then."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, circuit: Circuit, state: str) -> None:
        assert circuit.state.replace("opened", "open").replace("-", "_") == state, "told after the change"
        self.all.append((circuit.name, state))


def scene(clock: Clock | None = None, told: Told | None = None) -> tuple[Circuits, CircuitTable]:
    circuits = Circuits(clock or Clock(), told or Told())
    return circuits, circuits.build(UPSTREAMS, TARGETS)


async def built(clock: Clock | None = None, told: Told | None = None) -> CircuitTable:
    return Circuits(clock or Clock(), told or Told()).build(UPSTREAMS, TARGETS)


def target(name: str, label: str = "other", model: str = "any") -> Target:
    return Target(name, UPSTREAMS[name], model, label)


async def test_one_circuit_for_an_upstream() -> None:
    """Whatever the model."""
    circuits = await built()
    assert circuits.of(target("laptop", "small")) is circuits.of(target("laptop", "other", "invented"))
    assert circuits.of(target("laptop")).name == "laptop"
    assert circuits.of(target("laptop")) is not circuits.of(target("gpu"))


async def test_one_circuit_for_each_model() -> None:
    """Those that the configuration names have their own; all others share one."""
    circuits = await built()
    small, large, rest = (circuits.of(target("gpu", label)) for label in ("small", "large", "other"))
    assert len({id(small), id(large), id(rest)}) == 3
    assert circuits.of(target("gpu", "invented")) is rest
    assert circuits.of(target("gpu", "other", "another")) is rest
    assert {circuit.name for circuit in circuits.by_upstream["gpu"]} == {"gpu/small", "gpu/large", "gpu/other"}
    assert {circuit.name for circuit in circuits.all()} == {"gpu/small", "gpu/large", "gpu/other", "laptop"}
    small.open()
    assert (small.state, large.state, rest.state) == ("opened", "closed", "closed")


async def test_the_state_of_an_upstream_is_its_worst() -> None:
    """Open before half-open before closed."""
    circuits = await built()
    small, large = circuits.of(target("gpu", "small")), circuits.of(target("gpu", "large"))
    assert circuits.state("gpu") == "closed"
    small.half_open()
    assert circuits.state("gpu") == "half_open"
    large.open()
    assert circuits.state("gpu") == "open"
    large.close()
    assert circuits.state("gpu") == "half_open"
    assert circuits.state("laptop") == "closed"


async def test_whose_a_circuit_is() -> None:
    """Each knows its upstream."""
    circuits = await built()
    for name, several in circuits.by_upstream.items():
        assert {circuits.upstream_of(circuit) for circuit in several} == {name}


async def test_changes_are_told_in_order_and_once() -> None:
    """Every change of state, after it, however many calls were there to see it."""
    clock, told = Clock(), Told()
    circuit = (await built(clock, told)).of(target("laptop"))
    for _ in range(20):
        try:
            circuit.enter().judge(Broken("it failed"))
        except Rejected:
            continue
    assert told.all == [("laptop", "open")]
    clock.now += 30
    visits = []
    for _ in range(50):
        try:
            visits.append(circuit.enter())
        except Rejected:
            continue
    assert told.all[1:] == [("laptop", "half_open")]
    visits[0].judge(None)
    visits[1].judge(Broken("it failed"))
    visits[2].judge(Broken("it failed"))
    assert told.all[2:] == [("laptop", "open")]
    clock.now += 30
    for visit in [circuit.enter() for _ in range(3)]:
        visit.judge(None)
    assert told.all[3:] == [("laptop", "half_open"), ("laptop", "closed")]


async def test_each_circuit_tells_of_itself() -> None:
    """Changes of several are told under the right names."""
    told = Told()
    circuits = await built(told=told)
    for label in ("large", "invented", "small"):
        circuits.of(target("gpu", label)).open()
    assert told.all == [("gpu/large", "open"), ("gpu/other", "open"), ("gpu/small", "open")]


async def test_each_circuit_has_its_upstreams_policy_and_the_clock() -> None:
    """What one upstream is configured to bear is no other's business."""
    clock = Clock()
    upstreams = {
        "hasty": Upstream(provider="openai", circuit=Policy(minimum_calls=1, open_seconds=5.0)),
        "calm": Upstream(provider="openai", circuit=Policy(per="model", open_seconds=50.0)),
    }
    circuits = Circuits(clock, Told()).build(upstreams, [("chat", "calm", "small")])
    (hasty,) = circuits.by_upstream["hasty"]
    hasty.enter().judge(Broken("it failed"))
    assert hasty.wait() == 5.0
    for calm in circuits.by_upstream["calm"]:
        calm.enter().judge(Broken("it failed"))
        assert calm.state == "closed"
        calm.open()
        assert calm.wait() == 50.0
    clock.now += 5
    assert hasty.wait() == 0


async def test_purgatory_holds_our_circuits() -> None:
    """Its factory gives out, from its repository, the circuits that calls go through."""
    process, circuits = scene()
    repository = process._factory.uow.contexts
    assert isinstance(repository, AsyncInMemoryRepository)
    held: dict[str, Any] = dict(repository.breakers)
    ours = {circuit.name: circuit for several in circuits.by_upstream.values() for circuit in several}
    assert held.keys() == ours.keys()
    for name, circuit in ours.items():
        assert type(held[name]) is Circuit
        assert held[name] is circuit
        assert (await process._factory.get_breaker(name)).context is circuit


async def test_purgatorys_own_breaker_obeys_our_states() -> None:
    """Calls through its context manager count in our window, and are kept out by us."""
    told = Told()
    process, _ = scene(told=told)
    breaker = await process._factory.get_breaker("laptop")
    for _ in range(5):
        with pytest.raises(Broken):
            async with breaker:
                raise Broken("it failed")
    assert told.all == [("laptop", "open")]
    with pytest.raises(Rejected):
        await breaker.__aenter__()


async def test_listeners_must_not_wait() -> None:
    """A listener that would hold up a call is found out at once."""
    process, circuits = scene()

    async def idle(event: ContextChanged, work: object) -> None:
        await asyncio.sleep(0)

    process._factory.messagebus.add_listener(ContextChanged, idle)
    with pytest.raises(RuntimeError, match="waits"):
        circuits.of(target("laptop")).open()
