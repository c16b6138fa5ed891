"""The kinds of values in a configuration: what may be written, how it is read, and how it is told to editors."""

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from proxy.config.globs import check_glob
from proxy.config.redis_url import parse_redis_url


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]*)):([0-9]{1,5})")
_SIZE = re.compile(r"([0-9]+)\s*([KMG]i?B)?")
_UNITS = {
    None: 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect", "via"})


def parse_address(value: object) -> Address:
    """`HOST:PORT`, `[V6]:PORT`, `:PORT` (all interfaces) or `unix:PATH`; raises ValueError."""
    if isinstance(value, Address):
        return value
    if isinstance(value, str):
        if value.startswith("unix:") and len(value) > len("unix:"):
            return Address(path=value.removeprefix("unix:"))
        match = _ADDRESS.fullmatch(value)
        if match and int(match[3]) < 65536:
            return Address(host=match[1] or match[2] or "0.0.0.0", port=int(match[3]))  # noqa: S104
    raise ValueError("write HOST:PORT, [IPV6]:PORT or unix:PATH")


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError("write a number of bytes, or one with KB, KiB, MB, MiB, GB or GiB")
    return int(match[1]) * _UNITS[match[2]]


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str | Address) else tuple(value) if isinstance(value, list) else value


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        sane = parts.port != 0 and value.isprintable() and " " not in value
        if ":" not in (parts.hostname or ""):
            (parts.hostname or "").encode("idna")
    except ValueError:  # no port, or no host's name
        sane = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not sane:
        raise ValueError("write a URL such as http://host:8000 or https://host/v1")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("write the URL without user, query (?) and fragment (#); queries go under `query`")
    return value.rstrip("/")


def _check_header(value: str) -> str:
    if not HEADER_NAME.fullmatch(value):
        raise ValueError("is not a header name")
    if value.lower() in _OURS:
        raise ValueError(f"the header {value} is the sidecar's own and cannot be set")
    return value.lower()


def _check_header_value(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError("a header's value is printable ASCII on one line")
    return value


def _check_secret(value: SecretStr) -> SecretStr:
    """White space around a key comes from files and variables, and is no part of it."""
    key = value.get_secret_value().strip()
    if not key:
        raise ValueError("must not be empty")
    if not key.isprintable():
        raise ValueError("must be printable characters on one line")
    return SecretStr(key)


def _check_redis_url(value: SecretStr) -> SecretStr:
    """It may hold a password, so it is shown nowhere."""
    place = parse_redis_url(value.get_secret_value())
    if place.kind == "cluster":
        raise ValueError(
            "circuits and limits are shared through one server, or sentinels; a cluster is for cache.redis"
        )
    return SecretStr(value.get_secret_value().strip())


def _check_cache_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if text:
        parse_redis_url(text)
    return SecretStr(text)


_STRINGS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_ADDRESS_SCHEMA = {"type": "string", "description": "HOST:PORT, [IPV6]:PORT or unix:PATH"}

Listen = Annotated[Address, BeforeValidator(parse_address), WithJsonSchema(_ADDRESS_SCHEMA)]
Listens = Annotated[
    tuple[Listen, ...],
    Field(min_length=1),
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_ADDRESS_SCHEMA, {"type": "array", "items": _ADDRESS_SCHEMA}]}),
]
Bytes = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(_parse_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^(?:{_SIZE.pattern})$"}]}
    ),
]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_many), WithJsonSchema(_STRINGS)
]
Glob = Annotated[str, Field(min_length=1), AfterValidator(check_glob)]
Globs = Annotated[tuple[Glob, ...], BeforeValidator(_one_or_many), WithJsonSchema(_STRINGS)]
Url = Annotated[str, AfterValidator(_check_url)]
HeaderName = Annotated[str, AfterValidator(_check_header)]
HeaderValue = Annotated[str, AfterValidator(_check_header_value)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Namespace = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
CacheUrl = Annotated[SecretStr, AfterValidator(_check_cache_url)]
