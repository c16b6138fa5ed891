"""What a configuration holds. The names, defaults and texts here are the JSON Schema too."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from proxy.config.caching import Cache
from proxy.config.money import Budget, Price
from proxy.config.protection import Circuit, HealthCheck, Limits, Redis
from proxy.config.routes import RouteRule
from proxy.config.section import Section
from proxy.config.tracing import Tracing
from proxy.config.values import (
    Address,
    Bytes,
    Glob,
    Globs,
    HeaderName,
    HeaderValue,
    Label,
    Listen,
    Listens,
    Name,
    Patterns,
    Seconds,
    Secret,
    Url,
)
from proxy.openai_format.parameters import Column

Wire = Literal["exact", "normalise"]


class CallerKey(Section):
    """An application that may call, and the key it shows."""

    name: Name
    key: Secret
    """Shown as `Authorization: Bearer KEY`, or as `x-octet-key` where Authorization carries an upstream's key."""
    models: Globs = ("*",)
    """Globs of the model names that this caller may ask for."""
    limits: Limits = Limits()
    budget: Budget = Budget()


class Server(Section):
    """The sidecar's own side."""

    listen: Listens | None = None
    """Where applications reach it. Default: 127.0.0.1:8080 and, where there is IPv6, [::1]:8080."""
    admin: Listen = Address("127.0.0.1", 8081)
    """Where /metrics, /healthz, /readyz and /admin are; never the data port."""
    admin_token: Secret | None = None
    """Shown as `Authorization: Bearer TOKEN` by who reaches /admin from another machine. Default: nobody may."""
    callers: Annotated[tuple[CallerKey, ...], Field(strict=False)] = ()
    """None: whoever reaches the port may call."""
    cors_origins: Patterns = ()
    """Origins of web pages that may call, such as https://app.example; "*" for all. Default: none."""
    allowed_hosts: Patterns = ()
    """Host names that calls may name in their Host header. Default: any."""
    direct_models: bool | None = None
    """Whether `upstream/model` addresses an upstream directly. Default: only when there are no callers."""
    max_body_bytes: Bytes = 64 * 1024**2
    max_buffered_bytes: Bytes = 512 * 1024**2
    """Of the bodies of all calls in flight together; a call above it is answered 503."""
    max_connections: Annotated[int, Field(gt=0)] = 20_000
    body_timeout_seconds: Seconds = 60.0
    """In this long a request's body must bring 64 KiB, or its end; else it is answered 408."""
    send_timeout_seconds: Seconds = 300.0
    """How long a caller may take nothing of an answer before its connection is dropped."""
    keep_alive_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """Silence in a stream after which a comment is sent; 0: never."""
    drain_delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """How long new connections are still taken after SIGTERM (behind a Service: 5)."""
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 20.0
    """How long calls in flight may go on after that."""
    region: Label | None = None
    """Where this sidecar is; routes with `prefer_own_region` stay near."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the port, for machines with more cores (Linux)."""


class Tls(Section):
    """How an https upstream is trusted and how we show ourselves to it."""

    ca_file: str | None = None
    """PEM file of the authorities to trust, instead of the system's."""
    cert_file: str | None = None
    """PEM file of our certificate, when the upstream asks for one."""
    key_file: str | None = None
    """PEM file of our certificate's key."""


class Timeouts(Section):
    """The four clocks of an attempt."""

    connect_seconds: Seconds = 5.0
    first_token_seconds: Seconds = 600.0
    """Streams only: to the first content. Reasoning models are silent for minutes."""
    idle_seconds: Seconds = 120.0
    """Streams only: between bytes, once content flows."""
    total_seconds: Seconds | None = None
    """Default: 600 for a JSON call, 3600 for a stream."""


class Upstream(Section):
    """The far side of the wire."""

    provider: str
    """The dialect spoken there."""
    base_url: Url | None = None
    """Default: the provider's public address, where it has one."""
    api_key: Secret | None = None
    api_key_file: str | None = None
    """A file that holds the key and nothing else."""
    credential: Literal["own", "caller"] = "own"
    """caller: the key that the application sends in Authorization goes upstream."""
    auth_header: HeaderName | None = None
    """The header that takes the bare key, instead of the provider's usual one (Azure: api-key)."""
    headers: Annotated[dict[HeaderName, HeaderValue], Field(repr=False)] = {}
    """Sent with each call."""
    query: Annotated[dict[str, str], Field(repr=False)] = {}
    """Added to each call's address (Azure: api-version)."""
    wire: Wire | None = None
    """exact: bytes go through untouched; normalise: quirks are repaired. Default: the provider's."""
    tls: Tls = Tls()
    unix_socket: str | None = None
    """The path of a unix socket to connect to; `base_url` still says scheme, Host header and path."""
    max_connections: Annotated[int, Field(gt=0)] | None = None
    """Connections that there may be at once; more calls wait for one, up to `connect_seconds`. Default: no limit."""
    proxy: Url | None = None
    """An HTTP proxy on the way. Default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment."""
    allow_metadata_addresses: bool = False
    """Whether it may be at an address where clouds hand out credentials (169.254.0.0/16 and its like)."""
    labels: dict[Name, Label] = {}
    """What routes may require or prefer: region, tier, owner..."""
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    circuit: Circuit = Circuit()
    health_check: HealthCheck | None = None
    prices: dict[Glob, Price] = {}
    """By globs of the upstream's model names; the first that fits counts."""
    list_models: bool | None = None
    """Whether /v1/models shows the upstream's own list. Default: the provider's."""
    max_frame_bytes: Bytes = 8 * 1024**2
    """The largest frame of a stream."""
    max_choices: Annotated[int, Field(gt=0, le=128)] = 8
    """The largest `n` that is served by asking several times, where the dialect has no `n`."""
    settings: Any = {}
    """What only this provider knows."""


class Config(Section):
    """Octet's configuration."""

    server: Server = Server()
    upstreams: dict[Name, Upstream]
    routes: Annotated[tuple[RouteRule, ...], Field(strict=False)] = ()
    redis: Redis | None = None
    cache: Cache = Cache()
    tracing: Tracing | None = None
    _files: tuple[str, ...] = PrivateAttr(())

    @property
    def files(self) -> tuple[str, ...]:
        """Other files that it was made of, whose contents may change in place: keys, certificates, `${file:PATH}`."""
        return self._files

    def set_files(self, files: Iterable[str]) -> None:
        """Say which they are: once, by whoever read them."""
        self._files = tuple(files)


@dataclass(frozen=True, slots=True)
class ProviderTraits:
    """What the configuration must know of a provider.

    Args:
        base_url: where its public service is, or None when there is none.
        wires: those it can speak, its default first.
        wires_of: the same where it depends on the provider's settings.
        columns: what it does with each parameter, by the name of the mode.
        check: what is wrong with an upstream's settings beside its other keys; None when nothing is.
        environment: names of environment variables that hold its key, and its address.
        patterns: model names that go there when there is no file.
    """

    base_url: str | None
    wires: tuple[Wire, ...]
    list_models: bool = False
    settings: type[Section] = Section
    wires_of: Callable[[Any], tuple[Wire, ...]] | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    check: Callable[[Any, Mapping[str, Any]], str | None] | None = None
    key_variables: tuple[str, ...] = ()
    url_variable: str | None = None
    patterns: tuple[str, ...] = ()


Providers = Mapping[str, ProviderTraits]


def wires_for(traits: ProviderTraits, settings: Any) -> tuple[Wire, ...]:
    """The wires that a provider can speak under these settings, its default first."""
    return traits.wires_of(settings) if traits.wires_of else traits.wires
