"""Walks a route's targets until one answers."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType

from proxy.call import Call
from proxy.errors import (
    CallerError,
    CallerKeyRefused,
    CallerNotPermitted,
    CredentialRefused,
    InvalidRequest,
    PermissionRefused,
    ProxyFault,
    UpstreamError,
)
from proxy.openai_format.chunks import merge
from proxy.providers.fanout import Branch, MergedRelay
from proxy.providers.relay import Relay, encode_whole, open_parser, open_relay, read_completion, read_whole
from proxy.providers.seam import Endpoint, Exchange, Route, Target, UpstreamRequest
from proxy.resilience.clock import total_seconds
from proxy.resilience.policy import tries_next
from proxy.resilience.reply import Reply, StreamReply, WholeReply, upstream_request_id
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
        self._exchanges: list[Exchange] = []
        self._stream_reply: StreamReply | None = None

    async def __aenter__(self) -> Reply:
        try:
            return await self._walk()
        except BaseException:
            self._free()
            raise

    async def _walk(self) -> Reply:
        failure: UpstreamError | None = None
        for target in self._route.targets:
            try:
                return await self._attempt(target)
            except UpstreamError as error:
                self._leave(target, error)
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
            _redact(error, self._endpoints[self._record.upstream])
        self._free(drain=error is None)

    def _free(self, *, drain: bool = False) -> None:
        """Let go of what the attempt held. Nothing is awaited: a cancelled clean-up would clean nothing."""
        if self._stream_reply is not None:
            self._stream_reply.close()
            self._stream_reply = None
        for exchange in self._exchanges:
            exchange.close(drain=drain)
        self._exchanges.clear()

    def _leave(self, target: Target, error: UpstreamError) -> None:
        """Free what the failed attempt held, and count it."""
        self._free()
        self._telemetry.attempted(target.name, error.reason)
        if target is not self._route.targets[-1] and tries_next(error):
            self._telemetry.failed_over(self._route.name, target.name, error.reason)

    async def _attempt(self, target: Target) -> Reply:
        endpoint, record = self._endpoints[target.name], self._record
        if not record.attempts:
            self._name(target)
        call = self._call
        try:
            reply = await self._send(endpoint, target, call, first=True)
        except UpstreamError as error:
            amended = _amended(endpoint, call, target, error)
            if amended is None:
                raise
            self._free()
            reply = await self._send(endpoint, target, amended, first=False)
        record.facts = reply.facts
        record.first_token = time.perf_counter()
        record.rate_limits = endpoint.provider.rate_limits(reply.headers)
        record.upstream_request_id = upstream_request_id(reply.headers)
        self._telemetry.attempted(target.name, "ok")
        return reply

    async def _send(self, endpoint: Endpoint, target: Target, call: Call, *, first: bool) -> Reply:
        """Build and send the call's request, once."""
        record = self._record
        try:
            built = endpoint.provider.build_request(call, target)
        except RecursionError as error:
            raise InvalidRequest("the request is nested too deeply for this upstream") from error
        request = endpoint.dress(built, call)
        self._name(target)
        record.attempts += first
        record.dropped = request.dropped
        record.phase = "connect"
        began = time.perf_counter()
        try:
            return await (self._stream if call.stream else self._whole)(endpoint, target, request, call)
        except CredentialRefused as refused:
            if target.upstream.credential == "caller":
                kind = CallerNotPermitted if isinstance(refused, PermissionRefused) else CallerKeyRefused
                raise kind(refused.theirs or "the upstream refused your key") from refused
            raise
        except UpstreamError as error:
            _redact(error, endpoint)
            raise
        finally:
            record.upstream_seconds += time.perf_counter() - began

    def _name(self, target: Target) -> None:
        """Say whom the call went to; a target that cannot carry it does not count where another was tried."""
        record = self._record
        record.upstream, record.model, record.model_label = target.name, target.model, target.label

    async def _whole(self, endpoint: Endpoint, target: Target, request: UpstreamRequest, call: Call) -> WholeReply:
        patience, provider = total_seconds(target.upstream.timeouts, stream=False), endpoint.provider
        if request.copies == 1:
            exchange = await self._open(endpoint, target, request, patience, "total")
            self._record.phase = "json"
            body = await exchange.read(MAX_ANSWER_BYTES)
            self._free()  # the connection is free before the caller has read a byte
            whole, facts = read_completion(provider, call, target, exchange.headers, body)
            return WholeReply(exchange.headers, request.dropped, whole, facts)
        exchanges = await self._open_all(endpoint, target, request, patience, "total")
        self._record.phase = "json"
        bodies = [await exchange.read(MAX_ANSWER_BYTES) for exchange in exchanges]
        self._free()
        several = zip(exchanges, bodies, strict=True)
        whole, facts = encode_whole(
            merge([read_whole(provider, call, target, exchange.headers, body) for exchange, body in several])
        )
        return WholeReply(exchanges[0].headers, request.dropped, whole, facts)

    async def _stream(self, endpoint: Endpoint, target: Target, request: UpstreamRequest, call: Call) -> StreamReply:
        timeouts, started = target.upstream.timeouts, asyncio.get_running_loop().time()
        patience, clock = min(
            (timeouts.first_token_seconds, "first_token"), (total_seconds(timeouts, stream=True), "total")
        )
        exchanges = await self._open_all(endpoint, target, request, patience, clock)
        provider = endpoint.provider
        if len(exchanges) == 1:
            relay = open_relay(provider, call, target, exchanges[0].headers)
            reply = self._reply(relay, exchanges, request, target, started)
            exchanges[0].start(reply)
        else:
            merged = MergedRelay([open_parser(provider, call, target, each.headers) for each in exchanges], call)
            reply = self._reply(merged, exchanges, request, target, started)
            for index, exchange in enumerate(exchanges):
                exchange.start(Branch(merged, index, reply.absorb, reply.end, reply.fail))
        await reply.committed
        self._record.phase = "stream"
        return reply

    def _reply(
        self, relay: Relay, exchanges: list[Exchange], request: UpstreamRequest, target: Target, started: float
    ) -> StreamReply:
        gaps, count = self._record.gaps, partial(self._telemetry.streamed, target.name)
        self._stream_reply = StreamReply(relay, exchanges, request.dropped, target.upstream, started, gaps, count)
        return self._stream_reply

    async def _open_all(
        self, endpoint: Endpoint, target: Target, request: UpstreamRequest, patience: float, clock: str
    ) -> list[Exchange]:
        """Send the request, as often as it says; the answers' heads have come and are good."""
        if request.copies == 1:
            return [await self._open(endpoint, target, request, patience, clock)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._open(endpoint, target, request, patience, clock))
                    for _ in range(request.copies)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _open(
        self, endpoint: Endpoint, target: Target, request: UpstreamRequest, patience: float, clock: str
    ) -> Exchange:
        exchange = await endpoint.open(request, patience, clock)
        self._exchanges.append(exchange)
        self._record.connect_seconds += exchange.connect_seconds
        if self._call.stream:
            self._record.phase = "first_token"
        if exchange.status != 200:
            body = await exchange.read_up_to(MAX_ERROR_BYTES)
            error = endpoint.provider.parse_error(target, exchange.status, exchange.headers, body)
            error.upstream_request_id = upstream_request_id(exchange.headers) or None
            raise error
        return exchange


def _redact(error: UpstreamError, endpoint: Endpoint) -> None:
    """Take our secrets out of what the upstream said."""
    error.message = endpoint.redact(error.message)
    error.param = endpoint.redact(error.param) if error.param else error.param
    error.code = endpoint.redact(error.code) if error.code else error.code


def _amended(endpoint: Endpoint, call: Call, target: Target, error: UpstreamError) -> Call | None:
    """The call without what was refused; None also when an exact wire passed a body that cannot be read whole."""
    try:
        return endpoint.provider.amend(call, target, error)
    except (ValueError, InvalidRequest):
        return None
