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

Place = tuple[object, ...]  # what a circuit depends on
Watch = Callable[[Circuit, str], object]  # called with a circuit and the state it has just entered


class CircuitTable:
    """The circuits of one configuration: one for each upstream, or for each of its models that are named."""

    def __init__(self) -> None:
        self.by_upstream: dict[str, list[Circuit]] = {}
        self._circuits: dict[tuple[str, str], Circuit] = {}  # by upstream and model's label

    def add(self, upstream: str, label: str, circuit: Circuit) -> None:
        """Put in one more."""
        self._circuits[upstream, label] = circuit
        self.by_upstream.setdefault(upstream, []).append(circuit)

    def of(self, target: Target) -> Circuit:
        """The circuit that a target is behind."""
        if target.upstream.circuit.per == "upstream":
            return self._circuits[target.name, OTHER]
        return self._circuits.get((target.name, target.label)) or self._circuits[target.name, OTHER]

    def all(self) -> Iterable[Circuit]:
        return self._circuits.values()

    def state(self, upstream: str) -> str | None:
        """The state of an upstream: where its models have circuits of their own, the worst; None: there is none."""
        order = ("closed", "half_open", "open")
        states = (STATES[circuit.state] for circuit in self.by_upstream.get(upstream, ()))
        return max(states, key=order.index, default=None)

    def upstream_of(self, circuit: Circuit) -> str | None:
        """Whose circuit it is; None: nobody's any more."""
        return next((name for (name, _), each in self._circuits.items() if each is circuit), None)


class Circuits:
    """The circuits of the process.

    Args:
        clock: seconds that never go back.
        watch: told of each change of state, after it.
    """

    def __init__(self, clock: Callable[[], float], watch: Watch) -> None:
        self._clock = clock
        self._work = _Work()
        self._factory = AsyncCircuitBreakerFactory(uow=self._work)
        bus = self._factory.messagebus
        bus.remove_listener(CreateCircuitBreaker, register_circuit_breaker)
        bus.add_listener(CreateCircuitBreaker, self._create)
        self._factory.add_listener(self._on_event)
        self._watch = watch
        self._made: dict[str, tuple[Place, Circuit]] = {}  # by name
        self._wanted: dict[str, Upstream] = {}  # whose circuits are to be made, by their names

    def build(self, upstreams: Mapping[str, Upstream], targets: Iterable[tuple[str, str, str]]) -> CircuitTable:
        """The circuits of a configuration: those there are, where nothing has changed that they depend on, or new ones.

        Circuits that it does not have are forgotten.

        Args:
            targets: route, upstream and model's label of each.
        """
        table, kept = CircuitTable(), self._made
        self._made = {}
        for name, label in sorted(
            {(name, label) for _, name, label in targets} | {(name, OTHER) for name in upstreams}
        ):
            upstream = upstreams[name]
            if upstream.circuit.per == "model":
                table.add(name, label, self._circuit(f"{name}/{label}", upstream, kept))
            elif label == OTHER:
                table.add(name, label, self._circuit(name, upstream, kept))
        for name, (_, circuit) in kept.items():
            circuit.retire()
            if name not in self._made:
                del self._work.contexts.breakers[name]
        return table

    def _circuit(self, name: str, upstream: Upstream, kept: dict[str, tuple[Place, Circuit]]) -> Circuit:
        place = (upstream.circuit, upstream.provider, upstream.base_url, upstream.unix_socket)
        if name in kept and kept[name][0] == place:
            made = kept.pop(name)[1]
        else:
            self._work.contexts.breakers.pop(name, None)
            self._wanted[name] = upstream
            made = _run(self._factory.get_breaker(name)).context
        self._made[name] = place, made
        return made

    async def _create(self, command: CreateCircuitBreaker, work: AsyncAbstractUnitOfWork) -> Circuit:
        circuit = Circuit(command.name, self._wanted.pop(command.name).circuit, self._clock, self._deliver)
        await work.contexts.register(circuit)
        return circuit

    def _deliver(self, event: Event) -> None:
        """Tell the bus. None of its listeners waits for anything, so all of them have been told when this returns."""
        _run(self._factory.messagebus.handle(event, self._factory.uow))

    def _on_event(self, name: str, kind: str, event: Event) -> None:  # noqa: ARG002
        if isinstance(event, ContextChanged):
            self._watch(self._made[name][1], STATES[event.state])


class _Repository(AsyncInMemoryRepository):
    """Reads are local; changes of state go to the fleet, behind the calls' backs."""

    async def update_state(self, name: str, state: str, opened_at: float | None) -> None:  # noqa: ARG002
        circuit = self.breakers[name]
        if isinstance(circuit, Circuit) and circuit.fleet is not None:
            circuit.fleet.changed()


class _Work(AsyncInMemoryUnitOfWork):
    def __init__(self) -> None:
        self.contexts: _Repository = _Repository()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise RuntimeError("something of the circuits' bus waits for something")
