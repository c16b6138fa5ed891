"""What is kept, where and for how long, is read as it is written; what could not work is told with its place."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.config import Config, Price, RouteCache

UP = "upstreams: {up: {provider: openai}}\n"
ROUTE = UP + "routes: [{targets: [{upstream: up}], cache: %s}]\n"
REDIS = "redis: {url: 'redis://shared'}\n"
Load = Callable[..., Config]
Told = Callable[..., list[str]]


def rules(config: Config) -> RouteCache:
    found = config.routes[0].cache
    assert found is not None
    return found


def test_without_a_word(config: Load) -> None:
    """Memory is there, Redis is not, and no route keeps anything."""
    loaded = config(UP + "routes: [{targets: [{upstream: up}]}]")
    assert (loaded.cache.memory.max_bytes, loaded.cache.memory.ttl_seconds) == (64 * 1024**2, 600.0)
    assert (loaded.cache.redis, loaded.cache.max_entry_bytes) == (None, 1024**2)
    assert loaded.routes[0].cache is None


@pytest.mark.parametrize("nothing", ["", "{}", "~", "null"])
def test_a_route_that_says_only_cache(config: Load, nothing: str) -> None:
    """It keeps answers, by the defaults."""
    loaded = config(UP + f"routes:\n  - targets: [{{upstream: up}}]\n    cache: {nothing}\n")
    assert rules(loaded) == RouteCache()
    assert RouteCache().model_dump() == {
        "ttl_seconds": None,
        "any_temperature": False,
        "shared": False,
        "replay": "instant",
        "stale_if_error_seconds": 0.0,
        "stale_while_revalidate_seconds": 0.0,
        "store_filtered": False,
        "join_seconds": 0.0,
    }


def test_all_that_can_be_said(config: Load) -> None:
    """Each key, at its own place."""
    loaded = config(
        ROUTE % "{ttl_seconds: 5, any_temperature: true, shared: true, replay: paced, stale_if_error_seconds: 1, "
        "stale_while_revalidate_seconds: 2, store_filtered: true, join_seconds: 3}"
        + "cache: {max_entry_bytes: 2KiB, memory: {max_bytes: 1MB, ttl_seconds: 7}, "
        "redis: {url: 'rediss://h', ttl_seconds: 8, timeout_seconds: 0.5, namespace: 'a:b'}}"
    )
    assert rules(loaded) == RouteCache(
        ttl_seconds=5.0, any_temperature=True, shared=True, replay="paced", stale_if_error_seconds=1.0,
        stale_while_revalidate_seconds=2.0, store_filtered=True, join_seconds=3.0,
    )  # fmt: skip
    cache, tier = loaded.cache, loaded.cache.redis
    assert (cache.max_entry_bytes, cache.memory.max_bytes, cache.memory.ttl_seconds) == (2048, 1_000_000, 7.0)
    assert tier is not None
    assert tier.url is not None
    assert tier.url.get_secret_value() == "rediss://h"
    assert (tier.ttl_seconds, tier.timeout_seconds, tier.namespace) == (8.0, 0.5, "a:b")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (REDIS + "cache: {redis: {}}", "redis://shared"),
        (REDIS + "cache: {redis: {url: 'redis://own'}}", "redis://own"),
        (REDIS + "cache: {redis: {url: ~}}", "redis://shared"),
        (REDIS + "cache: {redis: {url: ''}}", None),
        (REDIS + "cache: {redis: {url: '  '}}", None),
        (REDIS + "cache: {redis: ~}", None),
        (REDIS + "cache: {}", None),
        (REDIS, None),
        ("cache: {redis: {url: 'redis://own'}}", "redis://own"),
        ("cache: {redis: {url: ''}}", None),
        ("cache: {redis: {url: 'redis+cluster://a,b'}}", "redis+cluster://a,b"),
        ("cache: {redis: {url: '${NOWHERE:-}'}}", None),
        ("cache: {redis: {url: '${SOMEWHERE:-}'}}", "redis://of-the-environment"),
    ],
)
def test_which_redis(config: Load, text: str, url: str | None) -> None:
    """The tier's own, else the one where all state is shared; an empty address is none."""
    tier = config(UP + text, SOMEWHERE="redis://of-the-environment").cache.redis
    if url is None:
        assert tier is None
    else:
        assert tier is not None
        assert tier.url is not None
        assert tier.url.get_secret_value() == url


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        (ROUTE, "ttl_seconds", [0, 0.5, 2592000]),
        (ROUTE, "stale_if_error_seconds", [0, 2592000]),
        (ROUTE, "stale_while_revalidate_seconds", [0, 2592000]),
        (UP + "cache: {memory: %s}", "ttl_seconds", [0.001, 86400]),
        (UP + "cache: {memory: %s}", "max_bytes", [1, 2**40]),
        (UP + "cache: %s", "max_entry_bytes", [1, 2**30]),
        (UP + REDIS + "cache: {redis: %s}", "ttl_seconds", [0.001, 86400]),
        (UP + REDIS + "cache: {redis: %s}", "timeout_seconds", [0.001, 5]),
    ],
)
def test_the_ends_of_each_range(config: Load, text: str, key: str, values: list[float]) -> None:
    """They belong to it."""
    for value in values:
        config(text % f"{{{key}: {value}}}")


def test_joining_for_as_long_as_may_be(config: Load) -> None:
    """Ten minutes, where there is a Redis to meet at."""
    assert rules(config(REDIS + ROUTE % "{join_seconds: 600}" + "cache: {redis: {}}")).join_seconds == 600.0


ROUTES = "octet.yaml:2:46: routes[0].cache."
CACHE = UP + "cache: "
MISSING = "cache.redis.url: is missing: give it here, or once for all at redis.url"
MOST, LEAST = "must be less than or equal to ", "must be greater than or equal to "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ROUTE % "{ttl_seconds: -1}", ROUTES + "ttl_seconds: " + LEAST + "0"),
        (ROUTE % "{ttl_seconds: 2592001}", ROUTES + "ttl_seconds: " + MOST + "2592000"),
        (ROUTE % "{ttl_seconds: 1h}", ROUTES + "ttl_seconds: must be a number"),
        (ROUTE % "{ttl_seconds: 1e999}", ROUTES + "ttl_seconds: must be"),
        (ROUTE % "{any_temperature: 1}", ROUTES + "any_temperature: must be true or false"),
        (ROUTE % "{shared: yes}", ROUTES + "shared: must be true or false"),
        (ROUTE % "{store_filtered: 'true'}", ROUTES + "store_filtered: must be true or false"),
        (ROUTE % "{replay: slow}", ROUTES + "replay: must be 'instant' or 'paced'"),
        (ROUTE % "{stale_if_error_seconds: -1}", ROUTES + "stale_if_error_seconds: " + LEAST + "0"),
        (ROUTE % "{stale_while_revalidate_seconds: 1e9}", "stale_while_revalidate_seconds: " + MOST + "2592000"),
        (ROUTE % "{join_seconds: 601}" + REDIS + "cache: {redis: {}}", ROUTES + "join_seconds: " + MOST + "600"),
        (ROUTE % "{join_seconds: 5}", ROUTES + "join_seconds: does nothing without cache.redis"),
        (ROUTE % "{ttl_second: 5}", ROUTES + 'ttl_second: unknown key "ttl_second"; did you mean "ttl_seconds"?'),
        (ROUTE % "true", "octet.yaml:2:38: routes[0].cache: must be a mapping"),
        (
            ROUTE % "{ttl_seconds: 0, stale_if_error_seconds: 5}",
            "stale_if_error_seconds: does nothing: with ttl_seconds: 0 no answer is kept",
        ),
        (
            ROUTE % "{ttl_seconds: 0, stale_while_revalidate_seconds: 5}",
            "stale_while_revalidate_seconds: does nothing: with ttl_seconds: 0 no answer is kept",
        ),
        (CACHE + "{memory: {max_bytes: 0}}", "octet.yaml:2:18: cache.memory.max_bytes: must be greater than 0"),
        (CACHE + "{memory: {max_bytes: much}}", "cache.memory.max_bytes: write a number of bytes"),
        (CACHE + "{memory: {ttl_seconds: 0}}", "octet.yaml:2:18: cache.memory.ttl_seconds: must be greater than 0"),
        (CACHE + "{memory: {ttl_seconds: 86401}}", "cache.memory.ttl_seconds: " + MOST + "86400"),
        (CACHE + "{max_entry_bytes: 0}", "octet.yaml:2:9: cache.max_entry_bytes: must be greater than 0"),
        (CACHE + "{memroy: {}}", 'cache.memroy: unknown key "memroy"; did you mean "memory"?'),
        (CACHE + "7", "octet.yaml:2:1: cache: must be a mapping"),
        (CACHE + "{redis: {}}", MISSING),
        (CACHE + "{redis: {ttl_seconds: 5}}", MISSING),
        (CACHE + "{redis: {url: 'http://h'}}", "octet.yaml:2:17: cache.redis.url: write a URL such as redis://host:6379/0"),
        (UP + REDIS + "cache: {redis: {ttl_seconds: 0}}", "cache.redis.ttl_seconds: must be greater than 0"),
        (UP + REDIS + "cache: {redis: {timeout_seconds: 0}}", "cache.redis.timeout_seconds: must be greater than 0"),
        (UP + REDIS + "cache: {redis: {timeout_seconds: 6}}", "cache.redis.timeout_seconds: " + MOST + "5"),
        (UP + REDIS + "cache: {redis: {namespace: 'a b'}}", "cache.redis.namespace: must be"),
        (UP + REDIS + "cache: {redis: {namespace: 'a*'}}", "cache.redis.namespace: must be"),
        (UP + "redis: {url: 'redis+cluster://a'}", "redis.url: circuits and limits are shared through one server"),
        ("upstreams: {a: {provider: openai, prices: {m: {output_per_million: -1}}}}", "per_million: " + LEAST + "0"),
        ("upstreams: {up: {provider: openai, prices: {m: {input: 1}}}}", 'unknown key "input"'),
    ],
)  # fmt: skip
def test_each_mistake(mistakes: Told, text: str, told: str) -> None:
    """One, with its place and what to write instead."""
    (mistake,) = mistakes(text)
    assert told in mistake


CALLERS = "server: {callers: [{name: ann, key: k}]}\n"
PASSING = "upstreams: {up: {provider: openai, credential: caller}, own: {provider: openai}}\nroutes: [%s]\n"
SHARED = "{targets: [{upstream: up}], cache: {shared: true}}"


def test_shared_answers_of_callers_nobody_knows(mistakes: Told) -> None:
    """Anybody with a made-up key could read them."""
    (told,) = mistakes(PASSING % SHARED)
    assert told.startswith("octet.yaml:2:46: routes[0].cache.shared: would give answers to anybody")
    assert "name server.callers" in told


@pytest.mark.parametrize(
    "text",
    [
        CALLERS + PASSING % SHARED,
        PASSING % SHARED.replace("true", "false"),
        PASSING % SHARED.replace("upstream: up", "upstream: own"),
        PASSING % "{targets: [{upstream: own}], fallback: [{upstream: up}], cache: {shared: true}}",
    ],
)
def test_shared_answers_of_callers_that_are_known(config: Load, text: str) -> None:
    """Where callers are named, or the key upstream is ours; answers of fallbacks are never kept."""
    assert config(text).routes[0].cache is not None


@pytest.mark.parametrize("url", ["redis://:s3cret@a,b", "http://u:s3cret@h", "redis://u:s3cret@h:x/y"])
def test_secrets_are_not_told(mistakes: Told, url: str) -> None:
    """A mistake in an address shows nothing of it."""
    assert "s3cret" not in "".join(mistakes(CACHE + f"{{redis: {{url: '{url}'}}}}"))


@pytest.mark.parametrize("text", ["cache: {redis: %s}", "redis: %s\ncache: {redis: {}}"])
def test_no_secret_in_a_configuration(config: Load, text: str) -> None:
    """Printed, it hides them."""
    loaded = config(UP + text % "{url: 'redis://u:s3cret@h'}")
    assert loaded.cache.redis is not None
    assert "s3cret" not in f"{loaded!r} {loaded.cache} {loaded.model_dump_json()}"


def test_prices(config: Load) -> None:
    """By globs, in the order of the file, each 0 unless it is given."""
    loaded = config("upstreams: {up: {provider: openai, prices: {gpt-4o: {input_per_million: 2.5}, '*': {}}}}")
    prices: dict[str, Any] = loaded.upstreams["up"].prices
    assert [*prices.items()] == [("gpt-4o", Price(input_per_million=2.5)), ("*", Price())]
    assert (Price().input_per_million, Price().output_per_million) == (0.0, 0.0)
