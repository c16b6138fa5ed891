"""What must agree between the parts of a configuration.

Works on the plain tree, so that these mistakes are told together with those of shape.
"""

import contextlib
import ssl
import sys
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from proxy.config.checks_caching import check_caching
from proxy.config.checks_money import check_money
from proxy.config.checks_routes import check_routes
from proxy.config.metadata import is_metadata_address
from proxy.config.mistakes import Path
from proxy.config.model import Providers, ProviderTraits, Server, wires_for
from proxy.config.protection import Circuit
from proxy.config.references import check_unique, unknown
from proxy.config.source import Document, listing, mapping


def check_references(document: Document, providers: Providers) -> None:
    """Note every reference that leads nowhere and every rule that cannot be reached."""
    tree = document.data if isinstance(document.data, dict) else {}
    upstreams = mapping(tree.get("upstreams"))
    if "upstreams" in tree and not upstreams:
        document.mistake(("upstreams",), "must name at least one upstream")
    for name, upstream in upstreams.items():
        _check_upstream(document, mapping(upstream), ("upstreams", name), providers)
    routes = [mapping(route) for route in listing(tree.get("routes"))]
    callers = [mapping(caller) for caller in listing(mapping(tree.get("server")).get("callers"))]
    check_routes(document, routes, tree)
    check_unique(document, callers, ("server", "callers"), "name")
    check_unique(document, callers, ("server", "callers"), "key")
    _check_bounds(document, mapping(tree.get("server")))
    check_caching(document, tree)
    check_money(document, tree)
    _check_tracing(document, mapping(tree.get("tracing")))
    _check_workers(document, mapping(tree.get("server")))


def _check_bounds(document: Document, server: dict[str, Any]) -> None:
    """One body must fit into the room for all; that they are sizes is checked elsewhere."""
    names = ("max_body_bytes", "max_buffered_bytes")
    try:
        bounds = Server.model_validate({name: server[name] for name in names if name in server})
    except ValidationError:
        return
    if bounds.max_buffered_bytes < bounds.max_body_bytes:
        place = names[1] if names[1] in server else names[0]
        document.mistake(("server", place), "max_buffered_bytes must be at least max_body_bytes, or no such body fits")


def _check_tracing(document: Document, tracing: dict[str, Any]) -> None:
    """Collectors take spans at a path, and are often named without it."""
    endpoint = tracing.get("endpoint")
    with contextlib.suppress(ValueError):  # no URL: told as a mistake of shape
        if isinstance(endpoint, str) and "://" in endpoint and not urlsplit(endpoint).path.strip("/"):
            document.mistake(
                ("tracing", "endpoint"), "lacks its path; OTLP's is /v1/traces: http://collector:4318/v1/traces"
            )


def _check_workers(document: Document, server: dict[str, Any]) -> None:
    """Processes share a TCP port, and only where the system deals out its connections among them."""
    workers = server.get("workers")
    if not isinstance(workers, int) or workers <= 1:
        return
    if sys.platform != "linux":
        document.mistake(("server", "workers"), "more than one works on Linux only; leave it out")
    listen = server.get("listen", ())
    if any(str(each).startswith("unix:") for each in ([listen] if isinstance(listen, str) else listing(listen))):
        document.mistake(("server", "workers"), "several processes cannot share a unix socket; listen at HOST:PORT")


def _check_upstream(document: Document, upstream: dict[str, Any], path: Path, providers: Providers) -> None:
    provider = upstream.get("provider")
    if isinstance(provider, str) and provider not in providers:
        unknown(document, (*path, "provider"), provider, providers)
    if upstream.get("api_key") and upstream.get("api_key_file"):
        document.mistake((*path, "api_key_file"), "api_key is given too; keep one of the two")
    if upstream.get("credential") == "caller" and (upstream.get("api_key") or upstream.get("api_key_file")):
        document.mistake((*path, "credential"), "with credential: caller no key of ours is used; remove the key")
    _check_address(document, upstream, path)
    _check_files(document, upstream, path)
    _check_circuit(document, mapping(upstream.get("circuit")), (*path, "circuit"))
    traits = providers.get(provider) if isinstance(provider, str) else None
    if traits is None:
        return
    if traits.base_url is None and not upstream.get("base_url"):
        document.mistake((*path, "base_url"), f"is missing: {provider} has no public address")
    _check_settings(document, upstream, path, traits)


def _check_address(document: Document, upstream: dict[str, Any], path: Path) -> None:
    """No way to a cloud's credentials by accident; where names lead is looked at when they are asked for."""
    for key in ("base_url", "proxy"):
        url = upstream.get(key)
        if upstream.get("allow_metadata_addresses") is True or not isinstance(url, str):
            continue
        with contextlib.suppress(ValueError):  # no URL: told as a mistake of shape
            if is_metadata_address(urlsplit(url).hostname or ""):
                document.mistake(
                    (*path, key),
                    "is an address where clouds hand out credentials; allow_metadata_addresses: true allows it",
                )


def _check_circuit(document: Document, circuit: dict[str, Any], path: Path) -> None:
    """A circuit must be able to open; that its numbers are such is checked elsewhere."""
    try:
        policy = Circuit.model_validate(circuit)
    except ValidationError:
        return
    if policy.minimum_calls > policy.window:
        place = "minimum_calls" if "minimum_calls" in circuit else "window"
        document.mistake((*path, place), "minimum_calls must be at most window, or the circuit never opens")
    if "slow_call_rate" in circuit and policy.slow_call_seconds is None:
        document.mistake((*path, "slow_call_rate"), "does nothing without slow_call_seconds beside it")


def _check_settings(document: Document, upstream: dict[str, Any], path: Path, traits: ProviderTraits) -> None:
    """What hangs together with the provider's own settings; their shape is checked elsewhere."""
    try:
        settings = traits.settings.model_validate(upstream.get("settings", {}))
    except ValidationError:
        return
    wire, wires = upstream.get("wire"), wires_for(traits, settings)
    if wire in ("exact", "normalise") and wire not in wires:
        document.mistake((*path, "wire"), f"{upstream['provider']} can only be {' or '.join(wires)} here")
    found = traits.check(settings, upstream) if traits.check else None
    if found:
        document.mistake((*path, "settings"), found)


def _check_files(document: Document, upstream: dict[str, Any], path: Path) -> None:
    tls = mapping(upstream.get("tls"))
    files: dict[Path, Any] = {("api_key_file",): upstream.get("api_key_file")}
    files |= {("tls", name): tls.get(name) for name in ("ca_file", "cert_file", "key_file")}
    document.files |= {file: None for file in files.values() if isinstance(file, str)}
    for place, file in files.items():
        if isinstance(file, str) and not _is_file(file):
            named = document.quote((*path, *place), file) if "/" in file or "." in file else "of this name"  # a key?
            document.mistake((*path, *place), f"there is no file {named}")
        elif place == ("api_key_file",) and isinstance(file, str) and not _holds_key(file):
            document.mistake((*path, *place), "the file cannot be read, or holds no key: printable text on one line")
    ca_file, cert_file, key_file = (tls.get(name) for name in ("ca_file", "cert_file", "key_file"))
    if (
        isinstance(ca_file, str)
        and _is_file(ca_file)
        and not _loads(lambda context: context.load_verify_locations(ca_file))
    ):
        document.mistake((*path, "tls", "ca_file"), "holds no PEM certificate")
    if isinstance(cert_file, str) and _is_file(cert_file):
        key = key_file if isinstance(key_file, str) and _is_file(key_file) else None
        if not _loads(lambda context: context.load_cert_chain(cert_file, key, password=lambda: "")):
            document.mistake((*path, "tls", "cert_file"), "holds no PEM certificate, or key_file is not its key")
    if tls.get("key_file") and not tls.get("cert_file"):
        document.mistake((*path, "tls", "key_file"), "cert_file is missing beside it")


def _is_file(name: str) -> bool:
    try:
        return FilePath(name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _holds_key(name: str) -> bool:
    try:
        key = FilePath(name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return False
    return bool(key) and key.isprintable()


def _loads(load: Callable[[ssl.SSLContext], object]) -> bool:
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except (OSError, ValueError):  # ssl's errors are some of them
        return False
    return True
