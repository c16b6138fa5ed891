"""YAML -> Config: strict, immutable, every mistake with its place."""

from proxy.config.caching import Cache, RedisTier, RouteCache
from proxy.config.differences import Change, differences, hold, shown
from proxy.config.globs import Globs, is_glob
from proxy.config.load import load, load_environment, parse, read_file
from proxy.config.metadata import is_metadata_address
from proxy.config.mistakes import ConfigError, Mistake
from proxy.config.model import (
    CallerKey,
    Config,
    ProviderTraits,
    Server,
    Timeouts,
    Tls,
    Upstream,
    Wire,
)
from proxy.config.money import Budget, Price
from proxy.config.protection import Circuit, HealthCheck, Hedge, Limits, Redis, Refusal, Retry
from proxy.config.redis_url import RedisPlace, parse_redis_url
from proxy.config.routes import (
    Canary,
    FallbackRule,
    Match,
    Mirror,
    RouteRule,
    Strategy,
    TargetRule,
    Way,
)
from proxy.config.schema import json_schema
from proxy.config.section import Section
from proxy.config.tracing import Tracing
from proxy.config.values import Address, parse_address

__all__ = [
    "Address",
    "Budget",
    "Cache",
    "CallerKey",
    "Canary",
    "Change",
    "Circuit",
    "Config",
    "ConfigError",
    "FallbackRule",
    "Globs",
    "HealthCheck",
    "Hedge",
    "Limits",
    "Match",
    "Mirror",
    "Mistake",
    "Price",
    "ProviderTraits",
    "Redis",
    "RedisPlace",
    "RedisTier",
    "Refusal",
    "Retry",
    "RouteCache",
    "RouteRule",
    "Section",
    "Server",
    "Strategy",
    "TargetRule",
    "Timeouts",
    "Tls",
    "Tracing",
    "Upstream",
    "Way",
    "Wire",
    "differences",
    "hold",
    "is_glob",
    "is_metadata_address",
    "json_schema",
    "load",
    "load_environment",
    "parse",
    "parse_address",
    "parse_redis_url",
    "read_file",
    "shown",
]
