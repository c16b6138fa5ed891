"""One try at one target: sends the call there, and holds what that needs until it is freed."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from proxy.call import Call, Deadline, Hold
from proxy.errors import (
    CredentialRefused,
    CutShort,
    InvalidRequest,
    ProxyError,
    TooSlow,
    UpstreamError,
)
from proxy.openai_format.chunks import merge
from proxy.providers.fanout import Branch, MergedRelay
from proxy.providers.relay import Relay, encode_whole, open_parser, open_relay, read_completion, read_whole
from proxy.providers.seam import Target, UpstreamRequest, upstream_request_id
from proxy.providers.wire import Endpoint, Exchange
from proxy.reply import Fetched, WholeReply
from proxy.resilience.circuit import Visit
from proxy.resilience.clock import Bounds, bounds_of, json_patience
from proxy.resilience.exchanges import Exchanges
from proxy.resilience.latency import FAILED_SECONDS, Load, PeakAverage
from proxy.resilience.policy import fault_of
from proxy.resilience.refusals import amended_call, callers_refusal, redact
from proxy.resilience.reply import StreamReply
from proxy.resilience.standing import Standing
from proxy.telemetry import AttemptTrace, CallRecord, Telemetry, Try

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Attempt:
    """One try. `run` gives the reply; what it needs (connection, clocks, a place) lives until `free`.

    Args:
        visit: the way through the upstream's circuit.
        hold: room under the upstream's limits, if it has any.
    """

    sent = False  # a request has gone out
    _began = 0.0  # when that was, by `time.perf_counter`
    seconds = 0.0  # spent waiting for the upstream, until the answer or the first content
    _stream_reply: StreamReply | None = None
    _reply: Fetched | None = None
    _limits: Mapping[str, str] = MappingProxyType({})  # the upstream's, in OpenAI's names
    _cancelled_as = "hangup"

    def __init__(
        self,
        call: Call,
        target: Target,
        standing: Standing,
        visit: Visit,
        hold: Hold | None,
        deadline: Deadline,
        record: CallRecord,
        telemetry: Telemetry,
    ) -> None:
        self.target = target
        self.standing = standing
        self._call = call
        self._visit = visit
        self._hold = hold
        self._deadline = deadline
        self._record = record
        self._telemetry = telemetry
        self._load: Load | None = standing.load(target)
        self._load.in_flight += 1
        self._timed: PeakAverage | None = None
        if standing.is_timed:
            self._timed = self._load.averages[call.stream]
            self._timed.wait(standing.clock())
        self._exchanges = Exchanges(target, record)
        self._trace: AttemptTrace | None = None
        self._error: ProxyError | None = None  # what it failed of, for the trace

    async def run(self) -> Fetched:
        """The answer, or a stream that has shown its first content.

        Raises:
            UpstreamError: there is none; it has been counted.
            CallerError: the target cannot carry the call.
        """
        endpoint, target, call = self.standing.endpoint, self.target, self._call
        if target.overrides is not None:
            call = target.overrides.apply(call)
        try:
            try:
                reply = await self._send(endpoint, call)
            except UpstreamError as error:
                amended = amended_call(endpoint, call, target, error)
                if amended is None:
                    raise
                self._let_go(drain=False)
                reply = await self._send(endpoint, amended)
        except UpstreamError as error:
            self._failed(error)
            raise
        except asyncio.CancelledError:
            self._telemetry.attempted(target.name, self._cancelled_as)
            if self.sent and self._cancelled_as == "hangup":
                self._telemetry.ledger.unknown(target.name, target.label)
            raise
        self._reply = reply
        self._visit.judge(None)
        self._time(self.seconds)
        self._limits = endpoint.provider.rate_limits(reply.headers)
        self.standing.answered(target, self._limits or reply.headers, self.seconds, stream=call.stream)
        self._telemetry.attempted(target.name, "ok")
        if not call.stream:
            self.free()  # the upstream is done with it
        return reply

    def claim(self, reply: Fetched) -> None:
        """This is the attempt that serves the call."""
        record = self._record
        record.facts = reply.facts
        record.rate_limits = self._limits
        record.upstream_request_id = upstream_request_id(reply.headers)
        record.first_token = time.perf_counter()

    def name(self, dropped: tuple[str, ...]) -> None:
        """Say whom the call goes to, and what of it is not carried there."""
        record, target = self._record, self.target
        record.upstream, record.model, record.model_label = target.name, target.model, target.label
        record.target = target
        record.dropped = dropped

    def extend(self, deadline: Deadline) -> None:
        """The call may last longer."""
        self._deadline = deadline
        began = self.standing.clock() - (time.perf_counter() - self._began)
        bounds = bounds_of(self.target.upstream.timeouts, deadline, began, stream=self._call.stream)
        if self._stream_reply is not None:
            self._stream_reply.bound(bounds)
        else:
            self._exchanges.bound(*bounds.first)

    def lose(self) -> None:
        """Another attempt serves the call; this one is about to be cancelled."""
        self._cancelled_as = "lost"

    @property
    def is_trial(self) -> bool:
        """Whether the circuit lets the call through to see how the upstream is."""
        return self._visit.is_trial

    def broke(self, error: UpstreamError) -> None:
        """The stream broke after its first content."""
        self._error = error
        redact(error, self.standing.endpoint, self.target)
        if fault_of(error).counts:
            self._visit.judge(error)

    def _failed(self, error: UpstreamError) -> None:
        self._error = error
        if self.sent and _is_silent(error):
            self._telemetry.ledger.unknown(self.target.name, self.target.label)
        if fault_of(error).counts:
            self._visit.judge(error)
        failed = Try(self.target.name, self.target.model, error.reason, error.told_code, round(self.seconds, 6))
        self._time(max(self.seconds, FAILED_SECONDS))
        self._record.tries = (*self._record.tries, failed)
        self.standing.failed(self.target, error)
        self._telemetry.attempted(self.target.name, error.reason)

    def _time(self, seconds: float) -> None:
        if self._timed is not None:
            self._timed.add(seconds, self.standing.clock())
            self._timed = None

    def free(self, *, drain: bool = False) -> None:
        """Let go of everything. Nothing is awaited: a cancelled clean-up would clean nothing."""
        self._let_go(drain=drain)
        self._visit.leave()
        if self._trace is not None:
            self._trace.end(self._error)
            self._trace = None
        load, self._load = self._load, None
        if load is not None:
            load.in_flight -= 1
        if self._timed is not None:
            self._timed.leave()
            self._timed = None
        hold, self._hold = self._hold, None
        if hold is not None and self.sent:
            hold.settle(self._reply.facts.total_tokens if self._reply is not None else 0)
        elif hold is not None:
            hold.cancel()

    def _let_go(self, *, drain: bool) -> None:
        if self._stream_reply is not None:
            self._stream_reply.close()
            self._stream_reply = None
        self._exchanges.close(drain=drain)

    async def _send(self, endpoint: Endpoint, call: Call) -> Fetched:
        """Build and send the call's request, once."""
        record, target = self._record, self.target
        try:
            built = endpoint.provider.build_request(call, target)
        except RecursionError as error:
            raise InvalidRequest("the request is nested too deeply for this upstream") from error
        more = target.headers
        if not self.sent:
            record.attempts += 1
            self.sent = True
            if record.trace is not None:
                provider = target.upstream.provider
                self._trace = record.trace.attempt(target.name, provider, target.model, record.attempts)
        if self._trace is not None:
            more = {**more, **self._trace.headers}
        request = endpoint.dress(built, call, more)
        self.name(request.dropped)
        record.phase = "connect"
        began = self._began = time.perf_counter()
        try:
            return await (self._stream if call.stream else self._whole)(endpoint, request, call)
        except CredentialRefused as refused:
            if target.upstream.credential == "caller":
                raise callers_refusal(refused, endpoint, target) from refused
            raise
        except UpstreamError as error:
            redact(error, endpoint, target)
            raise
        finally:
            self.seconds += time.perf_counter() - began

    async def _whole(self, endpoint: Endpoint, request: UpstreamRequest, call: Call) -> WholeReply:
        provider, target = endpoint.provider, self.target
        patience, clock = json_patience(target.upstream.timeouts, self._deadline, self.standing.clock)
        if request.copies == 1:
            exchange = await self._exchanges.open(endpoint, request, patience, clock, stream=False)
            self._record.phase = "json"
            body = await exchange.read(MAX_ANSWER_BYTES)
            self._let_go(drain=False)  # the connection is free before the caller has read a byte
            whole, facts = read_completion(provider, call, target, exchange.headers, body)
            return WholeReply(exchange.headers, request.dropped, whole, facts)
        exchanges = await self._exchanges.open_all(endpoint, request, patience, clock, stream=False)
        self._record.phase = "json"
        bodies = [await exchange.read(MAX_ANSWER_BYTES) for exchange in exchanges]
        self._let_go(drain=False)
        several = zip(exchanges, bodies, strict=True)
        whole, facts = encode_whole(
            merge([read_whole(provider, call, target, exchange.headers, body) for exchange, body in several])
        )
        facts.copies = request.copies
        return WholeReply(exchanges[0].headers, request.dropped, whole, facts)

    async def _stream(self, endpoint: Endpoint, request: UpstreamRequest, call: Call) -> StreamReply:
        provider, target = endpoint.provider, self.target
        bounds = bounds_of(target.upstream.timeouts, self._deadline, self.standing.clock(), stream=True)
        until, clock = bounds.first
        patience = until - bounds.began
        if request.copies == 1:
            exchanges = [await self._exchanges.open(endpoint, request, patience, clock, stream=True)]
        else:
            exchanges = await self._exchanges.open_all(endpoint, request, patience, clock, stream=True)
        if len(exchanges) == 1:
            relay = open_relay(provider, call, target, exchanges[0].headers)
            reply = self._sink(relay, exchanges, request, bounds)
            exchanges[0].start(reply)
        else:
            merged = MergedRelay([open_parser(provider, call, target, each.headers) for each in exchanges], call)
            merged.facts.copies = request.copies
            reply = self._sink(merged, exchanges, request, bounds)
            for index, exchange in enumerate(exchanges):
                exchange.start(Branch(merged, index, reply.absorb, reply.end, reply.fail))
        await reply.committed
        self._record.phase = "stream"
        return reply

    def _sink(self, relay: Relay, exchanges: list[Exchange], request: UpstreamRequest, bounds: Bounds) -> StreamReply:
        gaps, count = self._record.gaps, partial(self._telemetry.streamed, self.target.name)
        limit = self.target.upstream.max_frame_bytes
        self._stream_reply = StreamReply(relay, exchanges, request.dropped, bounds, limit, gaps, count)
        return self._stream_reply


def _is_silent(error: UpstreamError) -> bool:
    """Whether the upstream may have worked for an answer that never came."""
    return error.code == CutShort.code or (isinstance(error, TooSlow) and error.clock != "connect")
