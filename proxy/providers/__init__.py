"""The dialects, one file (or folder) each; whatever ends with `provider: Provider = ...` is one."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from proxy.config import ProviderTraits
from proxy.providers.seam import Provider


@cache
def providers() -> Mapping[str, Provider]:
    """Every provider by its name in the configuration."""
    found: dict[str, Provider] = {}
    for module in iter_modules(__path__):
        provider = getattr(import_module(f"{__name__}.{module.name}"), "provider", None)
        if provider is not None:
            found[module.name] = provider
    return found


def traits() -> Mapping[str, ProviderTraits]:
    """What the configuration must know of each."""
    return {name: provider.traits for name, provider in providers().items()}
