"""Which calls may share an answer, and the name under which it is kept. Pure.

Source: DESIGN.md §8.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256
from typing import Any

import msgspec

from proxy.call import Call, Json, Operation
from proxy.config import Upstream
from proxy.providers.seam import Route, Target

FORMAT = 1  # of the canonical form: another form is another key
SHARED = "*"  # the tenant that is everybody
NOBODY = "-"  # the tenant of callers whom nobody tells apart
# They decide nothing about the answer; `model` stays, since answers name what was asked for.
LEFT_OUT = (
    "stream", "stream_options", "user", "metadata", "store", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
# Below these, null is the same as nothing at all. Elsewhere it may be a value of the upstream's own templates.
_KNOWN = frozenset(
    "messages tools tool_choice functions function_call response_format audio prediction modalities logit_bias stop "
    "web_search_options reasoning".split()
)
_SCHEMAS = frozenset({"parameters", "schema"})  # below these it is a value: {"const": null}
ACCOUNT = ("openai-organization", "openai-project")  # whose answer it is, beside the credential


class Key(msgspec.Struct, frozen=True):
    """Whose answer to what.

    Args:
        digest: of everything that decides the answer, and of whom it is for; 32 bytes.
        tenant: a caller's name, or a digest.
    """

    digest: bytes
    route: str
    tenant: str

    @property
    def text(self) -> str:
        """The key in Redis, but for the namespace: no prompt, and no credential, can be read from it."""
        return f"{self.route}:{self.tenant}:{self.digest.hex()}"


def is_cacheable(fields: Json, operation: Operation, *, any_temperature: bool) -> bool:
    """Whether a call with these fields may be given the same answer again."""
    if fields.get("store") is True:
        return False
    if any_temperature or operation == "embeddings":
        return True
    return _is_zero(fields.get("temperature")) or fields.get("seed") is not None


def _is_zero(value: Any) -> bool:
    return value == 0 and not isinstance(value, bool)


def takes_callers_keys(route: Route) -> bool:
    """Whether the caller's own credential goes upstream, to a target whose answers are kept."""
    return any(target.upstream.credential == "caller" for target in _answering(route))


def tenant_of(call: Call, *, shared: bool, own_key: bool) -> str:
    """Whose answers the call may be given.

    Args:
        own_key: the caller's credential goes upstream, and it may be that only there it is known who may ask.
    """
    if shared:
        return SHARED
    caller = call.caller
    if not own_key or caller.credential is None:
        return caller.name or NOBODY
    whose = [caller.credential, *(call.headers.get(name, "") for name in ACCOUNT)]
    digest = sha256("\n".join(whose).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return digest if caller.name is None else f"{caller.name}~{digest}"


def digest_of_body(body: bytes) -> bytes:
    """Of the body as it came: what is known of it need not be found out again."""
    return blake2b(body, digest_size=32).digest()


def place_of(route: Route, operation: str, upstreams: Mapping[str, bytes]) -> bytes:
    """What of a call's way decides its answer: the route, and the set of its targets but for fallbacks.

    Args:
        upstreams: what of each upstream does, by name.
    """
    targets = sorted({_target(target, upstreams[target.name]) for target in _answering(route)})
    return b"\n".join([str(FORMAT).encode(), operation.encode(), route.name.encode(), *targets])


def _answering(route: Route) -> tuple[Target, ...]:
    """The targets whose answers are kept."""
    return route.primary or route.targets


def is_answered_by(route: Route, target: object) -> bool:
    """Whether that is a target whose answers are kept: a fallback's are not, though it may be called the same."""
    return any(target is each for each in _answering(route))


def _target(target: Target, upstream: bytes) -> bytes:
    parts = [target.name.encode(), target.model.encode(), upstream]
    if target.overrides is not None or target.headers:
        changed = target.overrides.text if target.overrides is not None else b""
        parts.append(sha256(changed + repr(sorted(target.headers.items())).encode()).hexdigest().encode())
    return b"\t".join(parts)


def upstream_digest(upstream: Upstream) -> bytes:
    """What of an upstream's settings decides its answers; of headers and addresses only a digest leaves this room."""
    decisive = [
        upstream.provider, str(upstream.base_url), str(upstream.unix_socket), repr(sorted(upstream.query.items())),
        repr(sorted(upstream.headers.items())), repr(upstream.settings),
    ]  # fmt: skip
    return sha256("\n".join(decisive).encode()).hexdigest().encode()


def key_of(body: bytes, fields: Json, route: str, tenant: str, place: bytes) -> Key | None:
    """The key of a call.

    Args:
        fields: of the body, as `read` gives them; they are used up.
        place: as `place_of` tells it.

    Returns:
        None for a body of which two readers could each believe something else: its answer is nobody else's.
    """
    text = canonical(body, fields)
    if text is None:
        return None
    hashed = sha256(place)
    hashed.update(b"\0%b\0%b" % (tenant.encode(), text))
    return Key(hashed.digest(), route, tenant)


def _number(text: str) -> float:
    """The number, the same however it is spelled; raises ValueError for one that no float can hold."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError("too large")
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


_decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def read(body: bytes) -> Json | None:
    """A body's fields, its numbers the same however they are spelled; None when it cannot be read so."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def canonical(body: bytes, fields: Json) -> bytes | None:
    """A body without what decides nothing, its keys in order and its numbers spelled alike.

    A key that stands twice in one object below the top is lost by the decoder, and with it its colon: then the body
    has no such form. An escaped colon could hide that.

    Args:
        fields: of the body; used up.
    """
    colons = 0
    for name in LEFT_OUT:
        if name in fields:
            colons += _encode(fields.pop(name)).count(b":") + 1
    text = _encode(fields)
    if text.count(b":") + colons != body.count(b":") or b"\\u003a" in body or b"\\u003A" in body:
        return None
    if b"null" not in text:
        return text
    try:
        return _encode({name: _bare(name, value) for name, value in fields.items() if value is not None})
    except RecursionError:
        return None


def _bare(name: str, value: Any) -> Any:
    return _without_nulls(value) if name in _KNOWN else value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: each if name in _SCHEMAS else _without_nulls(each) for name, each in value.items() if each is not None
        }
    return _each(value) if isinstance(value, list) else value


def _each(values: Iterable[Any]) -> list[Any]:
    return [_without_nulls(value) for value in values]
