"""What must agree between the parts of a configuration.

Works on the plain tree, so that these mistakes are told together with those of shape.
"""

import ssl
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from proxy.config.checks_caching import check_caching
from proxy.config.mistakes import Path, nearest
from proxy.config.model import Providers, ProviderTraits, Server, wires_for
from proxy.config.protection import Circuit
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
    names = [caller["name"] for caller in callers if isinstance(caller.get("name"), str)]
    for index, route in enumerate(routes):
        _check_route(document, route, ("routes", index), upstreams, names)
    _check_unique(document, routes, ("routes",), "name")
    _check_unique(document, callers, ("server", "callers"), "name")
    _check_unique(document, callers, ("server", "callers"), "key")
    _check_reachable(document, routes)
    _check_bounds(document, mapping(tree.get("server")))
    check_caching(document, tree)


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


def _check_upstream(document: Document, upstream: dict[str, Any], path: Path, providers: Providers) -> None:
    provider = upstream.get("provider")
    if isinstance(provider, str) and provider not in providers:
        _unknown(document, (*path, "provider"), provider, providers)
    if upstream.get("api_key") and upstream.get("api_key_file"):
        document.mistake((*path, "api_key_file"), "api_key is given too; keep one of the two")
    if upstream.get("credential") == "caller" and (upstream.get("api_key") or upstream.get("api_key_file")):
        document.mistake((*path, "credential"), "with credential: caller no key of ours is used; remove the key")
    _check_files(document, upstream, path)
    _check_circuit(document, mapping(upstream.get("circuit")), (*path, "circuit"))
    traits = providers.get(provider) if isinstance(provider, str) else None
    if traits is None:
        return
    if traits.base_url is None and not upstream.get("base_url"):
        document.mistake((*path, "base_url"), f"is missing: {provider} has no public address")
    _check_settings(document, upstream, path, traits)


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
    for place, file in files.items():
        if isinstance(file, str) and not _is_file(file):
            document.mistake((*path, *place), f"there is no file {document.quote((*path, *place), file)}")
    ca_file, cert_file, key_file = (tls.get(name) for name in ("ca_file", "cert_file", "key_file"))
    if (
        isinstance(ca_file, str)
        and _is_file(ca_file)
        and not _loads(lambda context: context.load_verify_locations(ca_file))
    ):
        document.mistake((*path, "tls", "ca_file"), "holds no PEM certificate")
    if isinstance(cert_file, str) and _is_file(cert_file):
        key = key_file if isinstance(key_file, str) and _is_file(key_file) else None
        if not _loads(lambda context: context.load_cert_chain(cert_file, key)):
            document.mistake((*path, "tls", "cert_file"), "holds no PEM certificate, or key_file is not its key")
    if tls.get("key_file") and not tls.get("cert_file"):
        document.mistake((*path, "tls", "key_file"), "cert_file is missing beside it")


def _is_file(name: str) -> bool:
    try:
        return FilePath(name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _loads(load: Callable[[ssl.SSLContext], object]) -> bool:
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except (ssl.SSLError, OSError):
        return False
    return True


def _check_route(
    document: Document, route: dict[str, Any], path: Path, upstreams: dict[str, Any], callers: list[str]
) -> None:
    for place, target in _targets(route):
        upstream = target.get("upstream")
        if isinstance(upstream, str) and upstream not in upstreams:
            _unknown(document, (*path, *place, "upstream"), upstream, upstreams)
    targets = [target for place, target in _targets(route) if place[0] == "targets"]
    if targets and route.get("strategy") == "weighted" and all(target.get("weight") == 0 for target in targets):
        document.mistake((*path, "targets"), "every weight is 0: no target could ever be chosen")
    if route.get("fallback_on") and not route.get("fallback"):
        document.mistake((*path, "fallback_on"), "does nothing without fallback targets")
    if route.get("hedge") is not None and len(list(_targets(route))) == 1:
        document.mistake((*path, "hedge"), "does nothing: there is no second target")
    wanted = mapping(route.get("match")).get("caller", [])
    here = (*path, "match", "caller")
    named = {here: wanted} if isinstance(wanted, str) else {(*here, i): name for i, name in enumerate(listing(wanted))}
    for place, caller in named.items():
        if isinstance(caller, str) and caller not in callers:
            _unknown(document, place, caller, callers)


def _unknown(document: Document, path: Path, name: str, known: Collection[str]) -> None:
    kind = next(step for step in reversed(path) if isinstance(step, str))
    hint = nearest(name, known) if path not in document.from_environment else ""
    document.mistake(path, f"unknown {kind} {document.quote(path, name)}{hint}")


def _targets(route: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for group in ("targets", "fallback"):
        for index, target in enumerate(listing(route.get(group))):
            yield (group, index), mapping(target)


def _check_unique(document: Document, items: list[dict[str, Any]], path: Path, key: str) -> None:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        value = item.get(key)
        if isinstance(value, str) and seen.setdefault(value, index) != index:
            document.mistake((*path, index, key), f"the same {key} stands at {path[-1]}[{seen[value]}]")


def _check_reachable(document: Document, routes: list[dict[str, Any]]) -> None:
    broken = {mistake.path[1] for mistake in document.mistakes if len(mistake.path) > 1 and mistake.path[0] == "routes"}
    for index, route in enumerate(routes):
        for earlier, other in enumerate(routes[:index]):
            if not broken & {index, earlier} and _covers(mapping(other.get("match")), mapping(route.get("match"))):
                document.mistake(("routes", index), f"can never match: routes[{earlier}] takes all its calls first")
                break


def _covers(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether every call that fits `second` surely fits `first`."""
    for key, wanted in first.items():
        if key == "model":
            if not all(
                any(_glob_covers(glob, name) for glob in _words(wanted)) for name in _words(second.get(key, "*"))
            ):
                return False
        elif key == "headers":
            narrower = {name.lower(): value for name, value in mapping(second.get(key)).items()}
            if any(narrower.get(name.lower()) != value for name, value in mapping(wanted).items()):
                return False
        elif key == "caller":
            if not second.get(key) or not set(_words(second[key])) <= set(_words(wanted)):
                return False
        elif second.get(key) != wanted:
            return False
    return True


def _glob_covers(glob: str, other: str) -> bool:
    """Whether `glob` fits all that `other` fits, as far as it can be told without doubt."""
    if glob in ("*", other):
        return True
    return not set("?[") & set(other + glob) and fnmatchcase(other, glob)


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [word for word in listing(value) if isinstance(word, str)]
