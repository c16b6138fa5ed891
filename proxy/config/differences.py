"""What differs between two configurations, told without values: they may be secrets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import SecretStr

from proxy.config.model import Config
from proxy.config.section import Section

AT_START_ONLY = (
    ("server", "listen"), ("server", "admin"), ("server", "workers"), ("redis",), ("cache", "redis"), ("tracing",),
)  # fmt: skip


class Change(NamedTuple):
    """One difference: an upstream, a route, a caller, or a section beside them.

    Args:
        keys: what of it was altered.
    """

    kind: Literal["added", "removed", "altered", "moved"]
    path: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        keys = ", ".join(self.keys)
        return f"{self.path} {self.kind} ({keys})" if keys else f"{self.path} {self.kind}"


def differences(old: Config, new: Config) -> list[Change]:
    """All of them, in the order of the file."""
    return list(_all(old, new))


def _all(old: Config, new: Config) -> Iterator[Change]:
    callers = [{caller.name: caller for caller in config.server.callers} for config in (old, new)]
    keys = tuple(key for key in _altered(old.server, new.server) if key != "callers")
    if keys:
        yield Change("altered", "server", keys)
    yield from _named("server.callers", *callers)
    yield from _named("upstreams", old.upstreams, new.upstreams)
    routes = [{str(route.name): route for route in config.routes} for config in (old, new)]
    yield from _named("routes", *routes)
    common = [[name for name in each if name in routes[0] and name in routes[1]] for each in routes]
    if common[0] != common[1]:
        yield Change("moved", "routes")
    for name, before, after in (
        ("redis", old.redis, new.redis),
        ("cache", old.cache, new.cache),
        ("tracing", old.tracing, new.tracing),
    ):
        if before is None or after is None:
            if before is not after:
                yield Change("added" if before is None else "removed", name)
        elif keys := _altered(before, after):
            yield Change("altered", name, keys)


def _named(path: str, old: Mapping[str, Section], new: Mapping[str, Section]) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change("removed", f"{path}.{name}")
    for name, section in new.items():
        if name not in old:
            yield Change("added", f"{path}.{name}")
        elif keys := _altered(old[name], section):
            yield Change("altered", f"{path}.{name}", keys)


def _altered(old: Section, new: Section) -> tuple[str, ...]:
    return tuple(name for name in type(new).model_fields if getattr(old, name) != getattr(new, name))


def hold(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The new configuration as far as a running process can take it, and the paths that need a restart."""
    held: list[str] = []
    for path in AT_START_ONLY:
        *sections, name = path
        before, after = _at(old, sections), _at(new, sections)
        if getattr(before, name) != getattr(after, name):
            held.append(".".join(path))
            new = _with(new, path, getattr(before, name))
    return new, held


def _at(config: Config, sections: Sequence[str]) -> Section:
    section: Section = getattr(config, sections[0]) if sections else config
    return section


def _with(config: Config, path: tuple[str, ...], value: Any) -> Config:
    if len(path) == 1:
        return config.model_copy(update={path[0]: value})
    section = getattr(config, path[0]).model_copy(update={path[1]: value})
    return config.model_copy(update={path[0]: section})


HIDDEN = "[hidden]"
_HIDING = frozenset({"headers", "query"})  # of an upstream, or a target: their values may be secrets


def shown(section: Any) -> Any:
    """A section as plain data without secrets and without what is left at its default."""
    if isinstance(section, Section):
        return {name: _shown_field(section, name) for name in type(section).model_fields if _is_told(section, name)}
    if isinstance(section, Mapping):
        return {str(key): shown(value) for key, value in section.items()}
    if isinstance(section, list | tuple):
        return [shown(each) for each in section]
    if isinstance(section, SecretStr):
        return HIDDEN
    return section if isinstance(section, str | int | float | bool | None) else str(section)


def _shown_field(section: Section, name: str) -> Any:
    value = getattr(section, name)
    if name in _HIDING and not type(section).model_fields[name].repr:
        return dict.fromkeys(value, HIDDEN)
    return shown(value)


def _is_told(section: Section, name: str) -> bool:
    field = type(section).model_fields[name]
    return field.is_required() or getattr(section, name) != field.get_default(call_default_factory=True)
