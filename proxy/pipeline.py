"""The journey of one call. Read this first.

A body comes in; its caller is known, it becomes a call, it gets a route, the route's targets are tried, and the
first reply goes out. Each `async with` holds something exactly as long as the reply needs it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from proxy.admission.auth import Auth
from proxy.admission.parsing import parse
from proxy.cache.answers import Answers
from proxy.cache.control import USUAL, control_of
from proxy.cache.passage import Passage
from proxy.call import NEVER, Call, Caller, Operation, header_values
from proxy.config import Config
from proxy.errors import (
    CallerError,
    LimitReached,
    LoopDetected,
    NotKept,
    ProxyError,
    ProxyFault,
    RequestRefused,
    UpstreamError,
)
from proxy.limits.budgets import Budgets
from proxy.limits.callers import CallerLimits
from proxy.openai_format.estimate import NOTHING, Estimate
from proxy.providers.seam import Route
from proxy.renewal import Renewals
from proxy.reply import Reply, WholeReply
from proxy.resilience.attempts import Walk
from proxy.resilience.deadline import deadline_of
from proxy.resilience.means import Means
from proxy.routing import Router
from proxy.telemetry import CallRecord, Telemetry

logger = logging.getLogger("octet")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration, made ready; a call keeps the one it began with.

    Args:
        generation: counts the configurations that have been in force, from 1.
    """

    generation: int
    config: Config
    auth: Auth
    router: Router
    means: Means
    callers: CallerLimits
    budgets: Budgets | None
    answers: Answers | None
    via: str


class Answer(Protocol):
    """Where replies go: the edge's side of a call."""

    def body(self) -> Coroutine[Any, Any, bytes]:
        """The request's body."""
        ...

    def expect(self, record: CallRecord) -> None:
        """A reply is being made; a stream may be kept alive meanwhile."""
        ...

    async def deliver(self, reply: Reply, record: CallRecord) -> None:
        """Send the reply, to its end; raises what breaks a stream on its way."""
        ...

    async def fail(self, error: ProxyError, record: CallRecord) -> None:
        """Tell the caller that there is no (further) reply."""
        ...

    def share(self, leave: Callable[[], bool] | None) -> None:
        """Others wait for the same reply: when the caller goes, `leave` says whether the call goes on for them."""
        ...

    def dismiss(self, error: ProxyError, record: CallRecord) -> None:
        """Tell the caller at once that there is no (further) reply; the call goes on for others."""
        ...


class Pipeline:
    """Serves calls, each under the snapshot that is in force when it begins."""

    def __init__(self, snapshot: Snapshot, telemetry: Telemetry) -> None:
        self.snapshot = snapshot
        self._telemetry = telemetry
        self._renewals = Renewals()

    async def close(self) -> None:
        """Stop what goes on behind callers' backs."""
        await self._renewals.close()

    async def serve(
        self, headers: Mapping[str, str], answer: Answer, record: CallRecord, operation: Operation = "chat"
    ) -> None:
        """One call from its body to its settled record.

        Raises:
            CancelledError, ConnectionError: the caller has gone.
            Exception: a fault of ours; the caller has been told, without details.
        """
        try:
            await self._serve(headers, answer, record, operation)
            record.outcome = record.outcome or "ok"  # a caller may have gone whose call went on for others
        except ProxyError as error:
            _note(record, error)
            if isinstance(error, ProxyFault) and error.__cause__ is not None:
                logger.error("call %s failed", record.request_id, exc_info=error.__cause__)
            await answer.fail(error, record)
        except ConnectionError:  # towards the caller: those of upstreams are UpstreamErrors
            record.outcome = record.outcome or "hangup"
            raise
        except asyncio.CancelledError:
            if record.cut_off_by is None:
                record.outcome = record.outcome or "hangup"
                raise
            _keep_on()
            _note(record, record.cut_off_by)
            await answer.fail(record.cut_off_by, record)
        except Exception as error:
            fault = ProxyFault("the sidecar failed on this call")
            _note(record, fault, type(error).__name__)
            await answer.fail(fault, record)
            raise
        finally:
            self._telemetry.settle(record)

    async def _serve(
        self, headers: Mapping[str, str], answer: Answer, record: CallRecord, operation: Operation
    ) -> None:
        snapshot, answers = self.snapshot, self.snapshot.answers
        record.generation = snapshot.generation
        if "traceparent" in headers or self._telemetry.traces is not None:
            self._telemetry.trace(record, headers, operation)
        if "via" in headers and snapshot.via in header_values(headers, "via"):
            raise LoopDetected("this call has passed this sidecar before: an upstream's base_url points back at it")
        caller = snapshot.auth.identify(headers)
        record.caller = caller.name or ""
        began = time.perf_counter()
        body = await answer.body()
        record.body_seconds = time.perf_counter() - began
        kept = answers.recall(operation, caller, headers, body, record) if answers is not None else None
        if kept is not None:
            await self._give(snapshot, kept, caller, answer, record)
            return
        call = _admit(snapshot, body, caller, headers, record, operation)
        if record.trace is not None:
            record.trace.asked(call.body)
        tokens = Estimate(call)
        route = _route(snapshot, call, tokens, record)
        answer.expect(record)
        deadline = deadline_of(call, route.total_seconds, snapshot.means.clock, record.routed - record.started)
        walk = Walk(call, route, snapshot.means, deadline, tokens, record)
        passage = self._passage(answers, call, route, record)
        way: AbstractAsyncContextManager[Reply] = walk
        found = False
        if passage is not None:
            found = passage.look() or (passage.may_fetch and await passage.fetch())
            way = passage.around(walk, deadline, answer)
        if snapshot.budgets is not None and not found:
            snapshot.budgets.check(record.caller, record.route)
        room = snapshot.callers.room(caller, record, deadline.whole, NOTHING if found else tokens)
        if room is None:
            async with way as reply:
                _tell(reply, record)
                await answer.deliver(reply, record)
        else:
            async with room, way as reply:
                _tell(reply, record)
                await answer.deliver(reply, record)

    async def _give(self, snapshot: Snapshot, kept: Reply, caller: Caller, answer: Answer, record: CallRecord) -> None:
        """Answer with what is kept; it is a request of the caller's all the same."""
        record.routed = time.perf_counter()
        answer.expect(record)
        room = snapshot.callers.room(caller, record, NEVER, NOTHING)
        if room is None:
            await answer.deliver(kept, record)
        else:
            async with room:
                await answer.deliver(kept, record)

    def _passage(self, answers: Answers | None, call: Call, route: Route, record: CallRecord) -> Passage | None:
        """The call's way through the cache; None when the cache has nothing to do with it."""
        control = USUAL
        if "cache-control" in call.headers:
            control = control_of(header_values(call.headers, "cache-control"))
        if answers is not None and route.cache is not None:
            question = answers.question(call, route, control, record)
            if question is not None:
                return Passage(answers, question, self._renew)
        if control.only_kept:
            raise NotKept("this call has no kept answer, and wants no other (only-if-cached)")
        return None

    def _renew(self, call: Call, done: Callable[[], object]) -> None:
        """Ask again, behind the caller's back, what was answered with what is past its time."""
        self._renewals.begin(call, partial(self.serve, operation=call.operation), done)


def _tell(reply: Reply, record: CallRecord) -> None:
    """Give the call's trace the answer, where it holds such things."""
    if record.trace is not None and isinstance(reply, WholeReply):
        record.trace.answered(reply.body)


def _keep_on() -> None:
    """Take a cancellation back: the caller is still there, and is owed an end."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _note(record: CallRecord, error: ProxyError, detail: str = "") -> None:
    if record.outcome:  # the caller had left before
        return
    record.reason = detail or error.reason
    if isinstance(error, LimitReached):
        record.outcome = "limited"
    elif isinstance(error, CallerError | RequestRefused):
        record.outcome = "caller_error"
    elif isinstance(error, UpstreamError):
        record.outcome = "cut" if record.first_token is not None else "upstream_error"
        record.upstream_request_id = error.upstream_request_id or record.upstream_request_id
    else:
        record.outcome = "proxy_error"


def _admit(
    snapshot: Snapshot,
    body: bytes,
    caller: Caller,
    headers: Mapping[str, str],
    record: CallRecord,
    operation: Operation,
) -> Call:
    """The body as a call; raises CallerError."""
    call = parse(
        body,
        operation=operation,
        caller=caller,
        headers=headers,
        call_id=record.request_id,
        received_at=time.time(),
    )
    record.model_asked, record.stream = call.model, call.stream
    snapshot.auth.check_model(caller, call.model)
    return call


def _route(snapshot: Snapshot, call: Call, tokens: Estimate, record: CallRecord) -> Route:
    """Where it goes; raises NotFound."""
    choice = snapshot.router.choose(call, tokens, snapshot.means)
    record.choice, record.route = choice, choice.route.name
    record.routed = time.perf_counter()
    return choice.route
