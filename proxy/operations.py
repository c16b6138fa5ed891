"""What an operator can ask of one process, and have it do."""

from collections.abc import Callable, Coroutine, Mapping
from itertools import islice
from typing import Any

from proxy.admission.auth import Auth
from proxy.call import Json
from proxy.errors import NotFound
from proxy.explain import describe_call, explain, look_into_redis
from proxy.pipeline import Pipeline
from proxy.reload import Reloader
from proxy.resources import Resources
from proxy.telemetry import Telemetry


class Operations:
    """Implements the admin side's `Operator` for this process alone.

    Args:
        is_ready: whether new calls are welcome.
        reloader: where this process reads its configuration itself.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        resources: Resources,
        telemetry: Telemetry,
        is_ready: Callable[[], bool],
        reloader: Reloader | None,
    ) -> None:
        self._pipeline = pipeline
        self._resources = resources
        self._telemetry = telemetry
        self._is_ready = is_ready
        self._reloader = reloader
        self._acts: Mapping[str, Callable[..., Coroutine[Any, Any, Json]]] = {
            "upstreams": self._upstreams,
            "open": self._open,
            "reset": self._reset,
            "cache": self._cache,
            "purge": self._purge,
            "explain": self._explain,
            "calls": self._calls,
            "call": self._call,
            "config": self._config,
            "reload": self._reload,
            "reloads": self._reloads,
        }

    @property
    def ready(self) -> bool:
        return self._is_ready()

    @property
    def auth(self) -> Auth:
        """Who operates."""
        return self._pipeline.snapshot.auth

    async def metrics(self) -> Any:
        """The registry of all metrics."""
        return self._telemetry.registry

    async def ask(self, what: str, **arguments: Any) -> Json:
        """Do it; raises ProxyError when it cannot be done."""
        return await self._acts[what](**arguments)

    async def _upstreams(self) -> Json:
        return {"upstreams": self._resources.describe()}

    async def _open(self, name: str, seconds: float | None) -> Json:
        return self._one(name, known=self._resources.hold_open(name, seconds))

    async def _reset(self, name: str) -> Json:
        return self._one(name, known=self._resources.reset(name))

    def _one(self, name: str, *, known: bool) -> Json:
        if not known:
            raise NotFound("there is no such upstream", code="not_found")
        return next(upstream for upstream in self._resources.describe() if upstream["name"] == name)

    async def _cache(self) -> Json:
        return self._resources.describe_cache()

    async def _purge(self, wanted: Mapping[str, str]) -> Json:
        return await self._resources.purge(wanted)

    async def _explain(self, asked: Mapping[str, Any]) -> Json:
        snapshot = self._pipeline.snapshot
        told = explain(snapshot, asked)
        await look_into_redis(snapshot, told)
        return told

    async def _calls(self, limit: int) -> Json:
        return {"calls": [describe_call(call) for call in islice(self._telemetry.recent.latest(), limit)]}

    async def _call(self, request_id: str) -> Json:
        for call in self._telemetry.recent.latest():
            if call.fields()["request_id"] == request_id:
                return describe_call(call)
        raise NotFound("no such call is among those that are remembered", code="not_found")

    async def _config(self) -> Json:
        return self._need_reloader().describe()

    async def _reload(self) -> Json:
        return (await self._need_reloader().reload("/admin/reload")).told()

    async def _reloads(self) -> Json:
        return self._need_reloader().describe_reloads()

    def _need_reloader(self) -> Reloader:
        if self._reloader is None:
            raise NotFound("another process reads the configuration", code="not_found")
        return self._reloader
