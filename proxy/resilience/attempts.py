"""Walks a route's targets until one answers."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

from proxy.call import Call
from proxy.errors import (
    CallerError,
    CallerKeyRefused,
    CallerNotPermitted,
    CredentialRefused,
    PermissionRefused,
    ProxyFault,
    UpstreamError,
)
from proxy.providers.relay import open_relay, read_completion
from proxy.providers.seam import Endpoint, Exchange, Route, Target, UpstreamRequest
from proxy.resilience.clock import total_seconds
from proxy.resilience.policy import tries_next
from proxy.resilience.reply import Reply, StreamReply, WholeReply, ran_out, upstream_request_id
from proxy.telemetry import CallRecord, Telemetry

MAX_ERROR_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Walk:
    """One call's way along its targets.

    Entering it tries them in order and gives the first reply that has content; what that reply needs (connection,
    clocks) lives until it is left.

    Raises on entering:
        ProxyError: of the last attempt, when none succeeded.
    """

    def __init__(
        self, call: Call, route: Route, endpoints: Mapping[str, Endpoint], record: CallRecord, telemetry: Telemetry
    ) -> None:
        self._call = call
        self._route = route
        self._endpoints = endpoints
        self._record = record
        self._telemetry = telemetry
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Reply:
        try:
            return await self._walk()
        except BaseException:
            await self._held.aclose()
            raise

    async def _walk(self) -> Reply:
        failure: UpstreamError | None = None
        for target in self._route.targets:
            try:
                return await self._attempt(target)
            except UpstreamError as error:
                await self._leave(target, error)
                if not tries_next(error):
                    raise
                failure = error
            except CallerError:
                if failure is None:
                    raise
                break  # the fallback cannot carry the call: what failed before is what the caller must know
            except asyncio.CancelledError:
                self._telemetry.attempted(target.name, "hangup")
                raise
        raise failure or ProxyFault("the route has no targets")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamError):
            error.message = self._endpoints[self._record.upstream].redact(error.message)
        await self._held.aclose()

    async def _leave(self, target: Target, error: UpstreamError) -> None:
        """Free what the failed attempt held, and count it."""
        await self._held.aclose()
        self._telemetry.attempted(target.name, error.reason)
        if target is not self._route.targets[-1] and tries_next(error):
            self._telemetry.failed_over(self._route.name, target.name, error.reason)

    async def _attempt(self, target: Target) -> Reply:
        endpoint, record = self._endpoints[target.name], self._record
        if not record.attempts:
            self._name(target)
        request = endpoint.dress(endpoint.provider.build_request(self._call, target), self._call)
        self._name(target)
        record.attempts += 1
        record.dropped = request.dropped
        record.phase = "connect"
        began = time.perf_counter()
        try:
            reply = await (self._stream if self._call.stream else self._whole)(endpoint, target, request)
        except CredentialRefused as refused:
            if target.upstream.credential == "caller":
                kind = CallerNotPermitted if isinstance(refused, PermissionRefused) else CallerKeyRefused
                raise kind(refused.theirs or "the upstream refused your key") from refused
            raise
        except UpstreamError as error:
            error.message = endpoint.redact(error.message)
            raise
        finally:
            record.upstream_seconds += time.perf_counter() - began
        record.facts = reply.facts
        record.first_token = time.perf_counter()
        record.upstream_request_id = upstream_request_id(reply.headers)
        self._telemetry.attempted(target.name, "ok")
        return reply

    def _name(self, target: Target) -> None:
        """Say whom the call went to; a target that cannot carry it does not count where another was tried."""
        record = self._record
        record.upstream, record.model, record.model_label = target.name, target.model, target.label

    async def _whole(self, endpoint: Endpoint, target: Target, request: UpstreamRequest) -> WholeReply:
        timeouts = target.upstream.timeouts
        try:
            async with asyncio.timeout(total_seconds(timeouts, stream=False)):
                exchange = await self._held.enter_async_context(endpoint.open(request))
                self._record.phase = "json"
                await self._check(endpoint, target, exchange)
                body = await exchange.read(MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise ran_out("total") from error
        await self._held.aclose()  # the connection is free before the caller has read a byte
        whole, facts = read_completion(endpoint.provider, self._call, target, exchange.content_type, body)
        return WholeReply(exchange.headers, request.dropped, whole, facts)

    async def _stream(self, endpoint: Endpoint, target: Target, request: UpstreamRequest) -> StreamReply:
        loop, timeouts = asyncio.get_running_loop(), target.upstream.timeouts
        started = loop.time()
        bound, clock = min(
            (timeouts.first_token_seconds, "first_token"), (total_seconds(timeouts, stream=True), "total")
        )
        try:
            async with asyncio.timeout(bound):
                exchange = await self._held.enter_async_context(endpoint.open(request))
                self._record.phase = "first_token"
                await self._check(endpoint, target, exchange)
        except TimeoutError as error:
            raise ran_out(clock) from error
        relay = open_relay(endpoint.provider, self._call, target, exchange.content_type)
        reply = StreamReply(relay, exchange, request.dropped, target.upstream, started)
        self._held.callback(reply.close)
        exchange.start(reply)
        await reply.committed
        self._record.phase = "stream"
        return reply

    async def _check(self, endpoint: Endpoint, target: Target, exchange: Exchange) -> None:
        """Raise what an answer that is not a success means."""
        if exchange.status == 200:
            return
        body = await exchange.read_up_to(MAX_ERROR_BYTES)
        error = endpoint.provider.parse_error(target, exchange.status, exchange.headers, body)
        error.upstream_request_id = upstream_request_id(exchange.headers) or None
        raise error
