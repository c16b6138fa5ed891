"""The circuits of one process, made and watched through purgatory's factory and bus."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from proxy.config import Upstream
from proxy.providers.seam import Target
from proxy.resilience.circuit import Circuit
from proxy.resilience.skeleton import (
    CLOSED,
    HALF_OPENED,
    OPENED,
    AsyncAbstractUnitOfWork,
    AsyncCircuitBreakerFactory,
    AsyncInMemoryRepository,
    AsyncInMemoryUnitOfWork,
    ContextChanged,
    CreateCircuitBreaker,
    Event,
    register_circuit_breaker,
)

STATES = {CLOSED: "closed", HALF_OPENED: "half_open", OPENED: "open"}
OTHER = "other"  # the model's label where the configuration does not hold its name

Watch = Callable[[Circuit, str], object]  # called with a circuit and the state it has just entered


class Circuits:
    """One circuit for each upstream, or for each of its models that the configuration names.

    Args:
        clock: seconds that never go back.
        watch: told of each change of state, after it.
    """

    def __init__(self, clock: Callable[[], float], watch: Watch) -> None:
        self._clock = clock
        self._factory = AsyncCircuitBreakerFactory(uow=_Work())
        bus = self._factory.messagebus
        bus.remove_listener(CreateCircuitBreaker, register_circuit_breaker)
        bus.add_listener(CreateCircuitBreaker, self._create)
        self._factory.add_listener(self._on_event)
        self._watch = watch
        self._policies: dict[str, tuple[str, Upstream]] = {}
        self._circuits: dict[tuple[str, str], Circuit] = {}  # by upstream and model's label
        self.by_upstream: dict[str, list[Circuit]] = {}

    async def build(self, upstreams: Mapping[str, Upstream], targets: Iterable[tuple[str, str, str]]) -> None:
        """Make them all.

        Args:
            targets: route, upstream and model's label of each.
        """
        for name, upstream in upstreams.items():
            if upstream.circuit.per == "upstream":
                await self._add(name, name, upstream, OTHER)
        for name, label in {(name, label) for _, name, label in targets} | {(name, OTHER) for name in upstreams}:
            if upstreams[name].circuit.per == "model":
                await self._add(f"{name}/{label}", name, upstreams[name], label)

    async def _add(self, circuit_name: str, upstream_name: str, upstream: Upstream, label: str) -> None:
        self._policies[circuit_name] = upstream_name, upstream
        breaker = await self._factory.get_breaker(circuit_name)
        circuit = breaker.context
        assert isinstance(circuit, Circuit)  # noqa: S101  # our own creator's
        self._circuits[upstream_name, label] = circuit
        self.by_upstream.setdefault(upstream_name, []).append(circuit)

    def of(self, target: Target) -> Circuit:
        """The circuit that a target is behind."""
        if target.upstream.circuit.per == "upstream":
            return self._circuits[target.name, OTHER]
        return self._circuits.get((target.name, target.label)) or self._circuits[target.name, OTHER]

    def all(self) -> Iterable[Circuit]:
        return self._circuits.values()

    def state(self, upstream: str) -> str:
        """The state of an upstream: where its models have circuits of their own, the worst."""
        order = ("closed", "half_open", "open")
        return max((STATES[circuit.state] for circuit in self.by_upstream[upstream]), key=order.index)

    def upstream_of(self, circuit: Circuit) -> str:
        return self._policies[circuit.name][0]

    async def _create(self, command: CreateCircuitBreaker, work: AsyncAbstractUnitOfWork) -> Circuit:
        circuit = Circuit(command.name, self._policies[command.name][1].circuit, self._clock, self._deliver)
        await work.contexts.register(circuit)
        return circuit

    def _deliver(self, event: Event) -> None:
        """Tell the bus. None of its listeners waits for anything, so all of them have been told when this returns."""
        _run(self._factory.messagebus.handle(event, self._factory.uow))

    def _on_event(self, name: str, kind: str, event: Event) -> None:  # noqa: ARG002
        if isinstance(event, ContextChanged):
            self._watch(self._circuits_by_name(name), STATES[event.state])

    def _circuits_by_name(self, name: str) -> Circuit:
        return next(circuit for circuit in self._circuits.values() if circuit.name == name)


class _Repository(AsyncInMemoryRepository):
    """Reads are local; changes of state go to the fleet, behind the calls' backs."""

    async def update_state(self, name: str, state: str, opened_at: float | None) -> None:  # noqa: ARG002
        circuit = self.breakers[name]
        if isinstance(circuit, Circuit) and circuit.fleet is not None:
            circuit.fleet.changed()


class _Work(AsyncInMemoryUnitOfWork):
    def __init__(self) -> None:
        self.contexts = _Repository()


def _run(work: Coroutine[Any, Any, object]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a listener of the circuits' bus waits for something")
