"""Traces by OpenTelemetry: a span for each call, a child for each attempt. Loaded only where tracing is configured.

Source: OpenTelemetry semantic conventions 1.37, "Generative AI client spans"; W3C Trace Context.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests import Response, Session

from proxy import __version__
from proxy.call import Json, Operation
from proxy.config import Tracing as Settings
from proxy.errors import ProxyError
from proxy.process import aside
from proxy.telemetry.record import CallRecord

logger = logging.getLogger("octet")

LONGEST_CONTENT = 64 * 1024  # bytes of what was asked, or answered
PATIENCE_SECONDS = 2.0  # for the last spans, when the process ends
_FAULTS = frozenset({"upstream_error", "cut", "proxy_error"})
_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_OPERATIONS: Mapping[str, str] = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_context = TraceContextTextMapPropagator()
_encode = msgspec.json.Encoder().encode


class Tracing:
    """Begins the traces of calls; implements `Traces`.

    Args:
        exporter: where spans go instead of the collector.
    """

    def __init__(self, settings: Settings, exporter: SpanExporter | None = None) -> None:
        resource = Resource.create({"service.name": settings.service_name, "service.version": __version__})
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)), shutdown_on_exit=False
        )
        if exporter is None:
            secrets = {name: value.get_secret_value() for name, value in settings.headers.items()}
            exporter = OTLPSpanExporter(endpoint=settings.endpoint, headers=secrets, timeout=5, session=_session())
        self._provider.add_span_processor(BatchSpanProcessor(_Told(exporter)))
        self._tracer = self._provider.get_tracer("octet", __version__)
        self._content = settings.content

    def begin(self, record: CallRecord, headers: Mapping[str, str], operation: Operation) -> None:
        """Begin a call's span, if it is to be traced: the caller's decision holds, where there is one."""
        given = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        started = time.time_ns() - int((time.perf_counter() - record.started) * 1e9)
        told = _OPERATIONS[operation]
        span = self._tracer.start_span(
            told, _context.extract(given), SpanKind.SERVER, {"gen_ai.operation.name": told}, start_time=started
        )
        if isinstance(span, Span) and span.is_recording():
            record.trace_id = format(span.get_span_context().trace_id, "032x")
            record.trace = CallTrace(self._tracer, span, told, content=self._content)

    async def close(self) -> None:
        """Send what is left, if the collector takes it soon enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await aside(self._provider.shutdown)


def _session() -> Session:
    """Takes a redirection for what it is: nothing has arrived, and our headers are not for wherever it leads."""

    def judge(response: Response, **_: object) -> None:
        if response.is_redirect:
            response.status_code = 400

    session = Session()
    session.max_redirects = 0
    session.hooks["response"].append(judge)
    return session


class _Told(SpanExporter):
    """Says once when spans do not arrive, and once when they do again; the library would say it with each batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._well = True
        self._turn = threading.Lock()  # batches are sent by a thread of the library's, and by who flushes
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        well = result is SpanExportResult.SUCCESS
        with self._turn:
            changed, self._well = well is not self._well, well
        if changed:
            if well:
                logger.info("traces arrive at the collector again")
            else:
                logger.warning("traces do not arrive at the collector (tracing.endpoint), and are lost meanwhile")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class CallTrace:
    """One call's span; implements `Trace`."""

    def __init__(self, tracer: Any, span: Span, operation: str, *, content: bool) -> None:
        self._tracer, self._span, self._operation, self._content = tracer, span, operation, content

    def attempt(self, upstream: str, provider: str, model: str, number: int) -> "AttemptSpan":
        """One begins."""
        span: Span = self._tracer.start_span(
            f"{self._operation} {model}",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": self._operation,
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "octet.upstream": upstream,
                "octet.attempt": number,
            },
        )
        return AttemptSpan(span)

    def asked(self, body: bytes) -> None:
        """What was asked, for those who want it in their traces."""
        if self._content and len(body) <= LONGEST_CONTENT:
            messages = _object(body).get("messages")
            self._say("gen_ai.input.messages", messages if isinstance(messages, list) else [])

    def answered(self, body: bytes) -> None:
        """What was answered, for the same."""
        if self._content and len(body) <= LONGEST_CONTENT:
            choices = _object(body).get("choices")
            listed = choices if isinstance(choices, list) else []
            messages = [choice.get("message") for choice in listed if isinstance(choice, dict)]
            self._say("gen_ai.output.messages", messages)

    def _say(self, name: str, messages: list[Any]) -> None:
        told = [
            {"role": message.get("role", ""), "parts": list(_parts(message))}
            for message in messages
            if isinstance(message, dict)
        ]
        if told:
            self._span.set_attribute(name, _encode(told).decode())

    def end(self, record: CallRecord, prompt: int | None, completion: int | None) -> None:
        """The call is over."""
        span, reason = self._span, record.facts.finish_reason
        told = {
            "gen_ai.request.model": record.model_asked,
            "gen_ai.response.model": record.model,
            "gen_ai.usage.input_tokens": prompt,
            "gen_ai.usage.output_tokens": completion,
            "gen_ai.response.finish_reasons": (reason if reason in _REASONS else "other",) if reason else None,
            "http.response.status_code": record.status,
            "error.type": record.reason if record.outcome in _FAULTS else None,
            "octet.request_id": record.request_id,
            "octet.caller": record.caller,
            "octet.route": record.route,
            "octet.upstream": record.upstream,
            "octet.outcome": record.outcome,
            "octet.cache": record.cache,
            "octet.stream": record.stream,
            "octet.attempts": record.attempts,
        }
        span.set_attributes({name: value for name, value in told.items() if value not in (None, "")})
        if record.model_asked:
            span.update_name(f"{self._operation} {record.model_asked}")
        if record.outcome in _FAULTS:
            span.set_status(Status(StatusCode.ERROR, record.reason))
        span.end()


class AttemptSpan:
    """One attempt's span; implements `AttemptTrace`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers: dict[str, str] = {}
        _context.inject(self.headers, set_span_in_context(span))

    def end(self, error: ProxyError | None) -> None:
        """It is over; of an error only its kind is told: its text may quote a prompt."""
        if error is not None:
            self._span.set_attribute("error.type", error.reason)
            self._span.set_status(Status(StatusCode.ERROR, error.reason))
        self._span.end()


def _parts(message: Json) -> Iterator[Json]:
    """A message's parts as the conventions have them; of pictures and sounds only that they were there."""
    content = message.get("content")
    for part in content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []:
        kind = part.get("type") if isinstance(part, dict) else None
        yield {"type": "text", "content": part.get("text")} if kind == "text" else {"type": str(kind)}
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            told = {"name": function.get("name"), "arguments": function.get("arguments")}
            yield {"type": "tool_call", "id": call.get("id"), **told}


def _object(body: bytes) -> Json:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
