"""How upstreams stand, for people: the admin side's view of a standing."""

from collections.abc import Iterable
from datetime import UTC, datetime

from proxy.call import Json
from proxy.resilience.circuit import Circuit, Closed, HalfOpened, Opened
from proxy.resilience.circuits import STATES
from proxy.resilience.latency import Latency
from proxy.resilience.standing import Standing


def describe(standing: Standing, circuits: Iterable[Circuit]) -> Json:
    """One upstream: its circuits, last failures, latency and limits. Times are seconds, moments RFC 3339."""
    return {
        "name": standing.name,
        "provider": standing.endpoint.dialect,
        "host": standing.endpoint.host,
        "circuits": [_circuit(circuit) for circuit in circuits],
        "latency": {
            "json": _latency(standing.latency[False]),
            "stream_first_content": _latency(standing.latency[True]),
        },
        "failures": [
            {
                "at": datetime.fromtimestamp(failure.at, UTC).isoformat(timespec="milliseconds"),
                "model": failure.model,
                "reason": failure.reason,
                "code": failure.code,
            }
            for failure in reversed(standing.failures)
        ],
        "limits": standing.limiter.describe() if standing.limiter is not None else None,
        "told_limits": standing.pace.describe(standing.clock()),
    }


def _circuit(circuit: Circuit) -> Json:
    state, now = circuit.current, circuit.clock()
    told: Json = {"name": circuit.name, "state": STATES[circuit.state]}
    if isinstance(state, Closed):
        window = state.window
        told |= {"calls": len(window), "failures": window.failures, "slow_calls": window.slow_calls}
    elif isinstance(state, Opened):
        told |= {"seconds_left": round(max(0.0, state.until - now), 3), "held": state.held}
    elif isinstance(state, HalfOpened):
        told |= {"trials_left": state.left, "trials_under_way": state.under_way}
    return told


def _latency(latency: Latency) -> Json:
    return {"calls": latency.count, "p50_seconds": latency.quantile(0.5), "p95_seconds": latency.quantile(0.95)}
