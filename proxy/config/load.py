"""From a file, or from the environment alone, to a Config or all that is wrong with it."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from proxy.config.caching import Cache
from proxy.config.checks import check_references
from proxy.config.mistakes import ConfigError, Mistake
from proxy.config.model import Config, Providers, Upstream, wires_for
from proxy.config.shape import check_shape
from proxy.config.source import MAX_FILE_BYTES, Document, read


def load(path: str, providers: Providers, environ: Mapping[str, str]) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: with every mistake, each at its place.
    """
    return parse(read_file(path), path, providers, environ)


def read_file(path: str) -> bytes:
    """A file's bytes, or the beginning of one that is too large; raises ConfigError when it cannot be read."""
    try:
        with FilePath(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([Mistake(path, None, (), f"cannot be read: {reason}")]) from error


def parse(text: bytes, source: str, providers: Providers, environ: Mapping[str, str]) -> Config:
    """Check a file's bytes; raises ConfigError."""
    return build(read(text, source, environ), providers)


def load_environment(providers: Providers, environ: Mapping[str, str]) -> Config | None:
    """The configuration that the environment's keys and addresses amount to; None when there are none."""
    upstreams: dict[str, Any] = {}
    routes: list[Any] = []
    for name, traits in providers.items():
        settings = _found(traits.key_variables, traits.url_variable, environ)
        if not settings or (traits.base_url is None and "base_url" not in settings):
            continue
        upstreams[name] = {"provider": name, **settings}
        if traits.patterns:
            routes.append({"name": name, "match": {"model": list(traits.patterns)}, "targets": [{"upstream": name}]})
    if not upstreams:
        return None
    if len(upstreams) == 1:
        (name,) = upstreams
        routes.append({"name": "everything", "match": {"model": "*"}, "targets": [{"upstream": name}]})
    shared = {"redis": {"url": environ["REDIS_URL"]}} if environ.get("REDIS_URL") else {}
    return build(Document("environment", {"upstreams": upstreams, "routes": routes, **shared}), providers)


def _found(keys: tuple[str, ...], url: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    settings = {}
    key = next((environ[variable] for variable in keys if environ.get(variable)), None)
    if key:
        settings["api_key"] = key
    if url and environ.get(url):
        settings["base_url"] = environ[url]
    return settings


def build(document: Document, providers: Providers) -> Config:
    """Check what was read, and fill in what the providers know.

    Raises:
        ConfigError: with every mistake.
    """
    config = check_shape(document, providers) if not document.mistakes or document.data is not None else None
    check_references(document, providers)
    if document.mistakes or config is None:
        raise ConfigError(document.mistakes, tuple(document.files))
    upstreams = {name: _complete(upstream, providers) for name, upstream in config.upstreams.items()}
    taken = {route.name for route in config.routes if route.name}
    routes = tuple(
        route.model_copy(update={"name": route.name or _free_name(f"route-{number}", taken)})
        for number, route in enumerate(config.routes, 1)
    )
    complete = config.model_copy(update={"upstreams": upstreams, "routes": routes, "cache": _place(config)})
    complete.set_files(document.files)
    return complete


def _place(config: Config) -> Cache:
    """The cache's Redis, where it is said to be, or where all state is shared; with an empty address there is none."""
    cache, tier = config.cache, config.cache.redis
    if tier is None:
        return cache
    url = tier.url if tier.url is not None or config.redis is None else config.redis.url
    placed = tier.model_copy(update={"url": url}) if url is not None and len(url) else None
    return cache.model_copy(update={"redis": placed})


def _free_name(name: str, taken: set[str]) -> str:
    return _free_name(f"unnamed-{name}", taken) if name in taken else name


def _complete(upstream: Upstream, providers: Providers) -> Upstream:
    traits = providers[upstream.provider]
    settings = traits.settings.model_validate(upstream.settings)
    defaults = {
        "base_url": upstream.base_url or traits.base_url,
        "wire": upstream.wire or wires_for(traits, settings)[0],
        "list_models": traits.list_models if upstream.list_models is None else upstream.list_models,
        "settings": settings,
    }
    return upstream.model_copy(update=defaults)
