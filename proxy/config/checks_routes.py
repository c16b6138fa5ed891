"""What must hold of routes: every name leads somewhere, every rule can be reached, and nothing stands there in vain."""

from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from proxy.config.globs import Globs
from proxy.config.mistakes import Path, nearest
from proxy.config.references import check_unique, unknown
from proxy.config.source import Document, listing, mapping
from proxy.config.values import HEADER_NAME

_IN_A_WAY = ("model", "max_context_tokens", "set", "defaults", "remove", "headers")


def check_routes(document: Document, routes: list[dict[str, Any]], tree: dict[str, Any]) -> None:
    """Note what could not work."""
    upstreams, server = mapping(tree.get("upstreams")), mapping(tree.get("server"))
    callers = [mapping(caller).get("name") for caller in listing(server.get("callers"))]
    names = [name for route in routes if isinstance(name := route.get("name"), str)]
    for index, route in enumerate(routes):
        path = ("routes", index)
        _check_targets(document, route, path, upstreams, names)
        _check_order(document, route, path, upstreams, server)
        _check_match(document, mapping(route.get("match")), (*path, "match"), callers)
    check_unique(document, routes, ("routes",), "name")
    _check_circles(document, routes)
    _check_reachable(document, routes)


def _check_targets(
    document: Document, route: dict[str, Any], path: Path, upstreams: dict[str, Any], names: list[str]
) -> None:
    others = 0  # places that calls may go, beside those behind other routes
    for place, target in _places(route):
        here, upstream = (*path, *place), target.get("upstream")
        if isinstance(upstream, str) and upstream not in upstreams:
            unknown(document, (*here, "upstream"), upstream, upstreams)
        if place[0] == "fallback":
            _check_fallback(document, target, here, names)
        _check_way(document, target, here)
        others += 2 if "route" in target else place[0] != "mirror"
    if route.get("fallback_on") and not route.get("fallback"):
        document.mistake((*path, "fallback_on"), "does nothing without fallback targets")
    if route.get("hedge") is not None and others == 1:
        document.mistake((*path, "hedge"), "does nothing: there is no second target")


def _check_way(document: Document, target: dict[str, Any], path: Path) -> None:
    """What is changed in a call must not be changed twice."""
    given, defaults = mapping(target.get("set")), mapping(target.get("defaults"))
    for name in _words(target.get("remove")):
        if name in given or name in defaults:
            document.mistake((*path, "remove"), f"{name} is set here too; keep one of the two")
    for name in given:
        if name in defaults:
            document.mistake((*path, "defaults", name), "does nothing: it is set anyway")


def _check_fallback(document: Document, target: dict[str, Any], path: Path, names: list[str]) -> None:
    upstream, other = target.get("upstream"), target.get("route")
    if (upstream is None) is (other is None):
        document.mistake(path, "name an upstream, or another route; one of the two")
    elif isinstance(other, str):
        if other not in names:
            unknown(document, (*path, "route"), other, names)
        for key in _IN_A_WAY:
            if key in target:
                document.mistake((*path, key), "does nothing beside route: write it at that route's targets")


def _check_order(
    document: Document, route: dict[str, Any], path: Path, upstreams: dict[str, Any], server: dict[str, Any]
) -> None:
    """The strategy, and what it goes by."""
    targets, strategy = [mapping(target) for target in listing(route.get("targets"))], route.get("strategy", "ordered")
    canary = route.get("canary")
    named = [mapping(upstreams.get(str(target.get("upstream")))) for target in targets]
    if targets and strategy == "weighted" and all(target.get("weight") == 0 for target in targets):
        document.mistake((*path, "targets"), "every weight is 0: no target could ever be chosen")
    if route.get("sticky") is not None and strategy != "weighted" and canary is None:
        document.mistake((*path, "sticky"), "does nothing without strategy: weighted, or a canary")
    if strategy == "least_cost" and not any(mapping(upstream.get("prices")) for upstream in named):
        document.mistake((*path, "strategy"), "least_cost needs prices at the targets' upstreams; there are none")
    if route.get("prefer_own_region") is True and not server.get("region"):
        document.mistake((*path, "prefer_own_region"), "needs server.region, which is not set")
    labels = [mapping(mapping(upstream).get("labels")) for upstream in upstreams.values()]
    known = {name for each in labels for name in each}
    for key in ("require", "prefer"):
        for name in mapping(route.get(key)):
            if name not in known:
                hint = nearest(name, known)
                document.mistake((*path, key, name), f'no upstream has a label "{name}"{hint}')
    required = mapping(route.get("require"))
    if any(mistake.path[:3] == (*path, "require") for mistake in document.mistakes):
        return
    if required and set(required) <= known and not any(_has(mapping(up.get("labels")), required) for up in named):
        document.mistake((*path, "require"), "no target's upstream has these labels: every call would fail")


def _has(labels: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an upstream's labels are what a route requires."""
    return all(
        isinstance(labels.get(name), str) and Globs(_words(globs)).fit(labels[name]) for name, globs in wanted.items()
    )


def _check_match(document: Document, match: dict[str, Any], path: Path, callers: Collection[Any]) -> None:
    seen = set[str]()
    for name in mapping(match.get("headers")):
        if not HEADER_NAME.fullmatch(name):
            document.mistake((*path, "headers", name), "is not a header name")
        if name.lower() in seen:
            document.mistake((*path, "headers", name), "stands twice: upper and lower case are the same")
        seen.add(name.lower())
    least, most = match.get("min_prompt_tokens"), match.get("max_prompt_tokens")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        document.mistake((*path, "max_prompt_tokens"), "is below min_prompt_tokens: no call is of that size")
    wanted, here = match.get("caller", []), (*path, "caller")
    named = {here: wanted} if isinstance(wanted, str) else {(*here, i): name for i, name in enumerate(listing(wanted))}
    for place, caller in named.items():
        if isinstance(caller, str) and caller not in callers:
            unknown(document, place, caller, [name for name in callers if isinstance(name, str)])


def _places(route: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every place that a route's calls may go."""
    for group in ("targets", "fallback"):
        for index, target in enumerate(listing(route.get(group))):
            yield (group, index), mapping(target)
    for name in ("canary", "mirror"):
        if isinstance(route.get(name), dict):
            yield (name,), route[name]


def _check_circles(document: Document, routes: list[dict[str, Any]]) -> None:
    """Fallbacks must come to an end."""
    leads = {
        str(route["name"]): [str(each["route"]) for each in _fallbacks(route) if isinstance(each.get("route"), str)]
        for route in routes
        if isinstance(route.get("name"), str)
    }
    for index, route in enumerate(routes):
        name = route.get("name")
        if not isinstance(name, str):
            continue
        for place, each in enumerate(_fallbacks(route)):
            way = _way_back(str(each.get("route")), name, leads) if isinstance(each.get("route"), str) else None
            if way is not None:
                circle = " -> ".join([name, *way])
                document.mistake(("routes", index, "fallback", place, "route"), f"leads in a circle: {circle}")


def _fallbacks(route: dict[str, Any]) -> list[dict[str, Any]]:
    return [mapping(each) for each in listing(route.get("fallback"))]


def _way_back(start: str, goal: str, leads: dict[str, list[str]]) -> list[str] | None:
    """From one route to another along fallbacks; None: there is no way."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop(0)
        if way[-1] == goal:
            return way
        for step in leads.get(way[-1], ()):
            if step not in seen:
                seen.add(step)
                ways.append([*way, step])
    return None


def _check_reachable(document: Document, routes: list[dict[str, Any]]) -> None:
    broken = {mistake.path[1] for mistake in document.mistakes if len(mistake.path) > 1 and mistake.path[0] == "routes"}
    for index, route in enumerate(routes):
        for earlier, other in enumerate(routes[:index]):
            if not broken & {index, earlier} and _covers(mapping(other.get("match")), mapping(route.get("match"))):
                document.mistake(("routes", index), f"can never match: routes[{earlier}] takes all its calls first")
                break


def _covers(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether every call that fits `second` surely fits `first`."""
    return all(_COVERS.get(key, _equal)(wanted, second.get(key)) for key, wanted in first.items())


def _equal(wanted: Any, other: Any) -> bool:
    return bool(other == wanted)


def _models_cover(wanted: Any, other: Any) -> bool:
    names = _words("*" if other is None else other)
    return all(any(_glob_covers(glob, name) for glob in _words(wanted)) for name in names)


def _headers_cover(wanted: Any, other: Any) -> bool:
    narrower = {name.lower(): value for name, value in mapping(other).items()}
    return all(narrower.get(name.lower()) == value for name, value in mapping(wanted).items())


def _entries_cover(wanted: Any, other: Any) -> bool:
    return all(mapping(other).get(name) == value for name, value in mapping(wanted).items())


def _callers_cover(wanted: Any, other: Any) -> bool:
    return bool(other) and set(_words(other)) <= set(_words(wanted))


def _least_covers(wanted: Any, other: Any) -> bool:
    return isinstance(other, int) and other >= wanted


def _most_covers(wanted: Any, other: Any) -> bool:
    return isinstance(other, int) and other <= wanted


_COVERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "model": _models_cover,
    "headers": _headers_cover,
    "metadata": _entries_cover,
    "caller": _callers_cover,
    "min_prompt_tokens": _least_covers,
    "max_prompt_tokens": _most_covers,
}


def _glob_covers(glob: str, other: str) -> bool:
    """Whether `glob` fits all that `other` fits, as far as it can be told without doubt."""
    if glob in ("*", other):
        return True
    return not set("?[") & set(other + glob) and fnmatchcase(other, glob)


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [word for word in listing(value) if isinstance(word, str)]
