"""YAML -> Config: strict, immutable, every mistake with its place."""

from proxy.config.globs import Globs, is_glob
from proxy.config.load import load, load_environment
from proxy.config.mistakes import ConfigError, Mistake
from proxy.config.model import (
    CallerKey,
    Config,
    Match,
    ProviderTraits,
    RouteRule,
    Section,
    Server,
    TargetRule,
    Timeouts,
    Tls,
    Upstream,
    Wire,
)
from proxy.config.schema import json_schema
from proxy.config.values import Address, parse_address

__all__ = [
    "Address",
    "CallerKey",
    "Config",
    "ConfigError",
    "Globs",
    "Match",
    "Mistake",
    "ProviderTraits",
    "RouteRule",
    "Section",
    "Server",
    "TargetRule",
    "Timeouts",
    "Tls",
    "Upstream",
    "Wire",
    "is_glob",
    "json_schema",
    "load",
    "load_environment",
    "parse_address",
]
