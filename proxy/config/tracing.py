"""Where traces of calls go: the section of OpenTelemetry."""

from typing import Annotated

from pydantic import Field

from proxy.config.section import Section
from proxy.config.values import HeaderName, Label, Secret, Url


class Tracing(Section):
    """A trace of each call, sent to a collector; needs the extra `otel` (pip install "octet[otel]")."""

    endpoint: Url = "http://127.0.0.1:4318/v1/traces"
    """Where the collector takes OTLP over HTTP."""
    headers: Annotated[dict[HeaderName, Secret], Field(repr=False)] = {}
    """Sent to the collector."""
    service_name: Label = "octet"
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of calls that are traced when their caller has not decided it (by `traceparent`)."""
    content: bool = False
    """Whether traces hold what was asked, and what whole answers say. Keys they never hold."""
