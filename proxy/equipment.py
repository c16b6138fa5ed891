"""What one configuration works with: its upstreams ready to be called, its limits, its circuits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.config import Config, Limits, Upstream
from proxy.limits.budgets import Budgets
from proxy.limits.limiter import Limiter
from proxy.resilience.circuits import CircuitTable
from proxy.resilience.standing import Standing
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.material import Material
from proxy.upstream.transport import Transport

Scope = tuple[str, str]  # `upstream` or `caller`, and its name


@dataclass(slots=True)
class Equipment:
    """What the calls of one configuration work with; some of it outlives the configuration.

    Args:
        places: what each transport depends on: when it is the same in the next configuration, so is the transport.
        rules: the limits that each limiter keeps.
    """

    config: Config
    transports: dict[str, Transport] = field(default_factory=dict)
    places: dict[str, object] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    limiters: dict[Scope, Limiter] = field(default_factory=dict)
    rules: dict[Scope, Limits] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    circuits: CircuitTable = field(default_factory=CircuitTable)
    budgets: Budgets | None = None

    @property
    def limited_callers(self) -> Mapping[str, Limiter]:
        """The limiters of callers, by name."""
        return {name: limiter for (scope, name), limiter in self.limiters.items() if scope == "caller"}


def place_of(upstream: Upstream, material: Material) -> object:
    """What connections to an upstream depend on, the contents of its TLS files too."""
    return (
        upstream.base_url, upstream.unix_socket, upstream.proxy, upstream.max_connections, upstream.query,
        upstream.tls, material.certificates, upstream.timeouts.connect_seconds,
    )  # fmt: skip
