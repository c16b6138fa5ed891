"""Types, ranges and unknown keys are told in plain words, at their place."""

from collections.abc import Callable

import pytest

UP = "upstreams: {up: {provider: openai}}\n"
ROUTE = UP + "routes:\n  - "


def up(settings: str) -> str:
    """A file with one upstream; its settings begin on line 3, column 5."""
    return f"upstreams:\n  up:\n    {settings}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "octet.yaml: must be a mapping with the keys server, upstreams, routes"),
        ("- a", "octet.yaml:1:1: must be a mapping with the keys server, upstreams, routes"),
        ("routes: []", "octet.yaml:1:1: upstreams: is missing"),
        (UP + "rotues: []", '2:1: rotues: unknown key "rotues"; did you mean "routes"?'),
        (UP + "x: 1", '2:1: x: unknown key "x"; known: cache, redis, routes, server, tracing, upstreams'),
        (UP + "tracing: {endpoint: 'http://h:4318'}", "2:11: tracing.endpoint: lacks its path; OTLP's is /v1/traces"),
        (UP + "server: {listn: ':1'}", '2:10: server.listn: unknown key "listn"; did you mean "listen"?'),
        (UP + "server: {listen: '8080'}", "2:10: server.listen[0]: write HOST:PORT, [IPV6]:PORT or unix:PATH"),
        (UP + "server: {admin: 'h:65536'}", "2:10: server.admin: write HOST:PORT, [IPV6]:PORT or unix:PATH"),
        (UP + "server: {listen: []}", "2:10: server.listen: must not be empty"),
        (UP + "server: {max_body_bytes: 1 potato}", "2:10: server.max_body_bytes: write a number of bytes"),
        (UP + "server: {max_body_bytes: 0}", "2:10: server.max_body_bytes: must be greater than 0"),
        (UP + "server: {max_connections: 1.5}", "2:10: server.max_connections: must be a whole number"),
        (UP + "server: {drain_seconds: yes}", "2:10: server.drain_seconds: must be a number"),
        (UP + "server: {drain_seconds: 1e999}", "2:10: server.drain_seconds: must be a finite number"),
        (UP + "server: {direct_models: on}", "2:10: server.direct_models: must be true or false"),
        (UP + "server: {callers: [{name: a}]}", "2:20: server.callers[0].key: is missing"),
        (up("wire: exact"), "2:3: upstreams.up.provider: is missing"),
        (up("{provider: openai, wire: raw}"), "3:24: upstreams.up.wire: must be 'exact' or 'normalise'"),
        (up("{provider: openai, api_key: 12345}"), "3:24: upstreams.up.api_key: must be text; put it in quotes"),
        (up("{provider: openai, api_key: ''}"), "3:24: upstreams.up.api_key: must not be empty"),
        (up("{provider: openai, base_url: api.openai.com}"), "3:24: upstreams.up.base_url: write a URL such as"),
        (up("{provider: openai, base_url: 'http://h?a=1'}"), "queries go under `query`"),
        (up("{provider: openai, proxy: 'http://u:p@h:1'}"), "3:24: upstreams.up.proxy: write the URL without user"),
        (up("{provider: openai, headers: {a b: x}}"), "3:34: upstreams.up.headers.a b: is not a header name"),
        (
            up("{provider: openai, headers: {Host: x}}"),
            "upstreams.up.headers.Host: the header Host is the sidecar's own",
        ),
        (up("{provider: openai, headers: {a: é}}"), "3:34: upstreams.up.headers.a: a header's value is printable"),
        (up("{provider: openai, timeouts: {idle_second: 1}}"), 'did you mean "idle_seconds"?'),
        (up("{provider: openai, timeouts: {idle_seconds: -1}}"), "timeouts.idle_seconds: must be greater than 0"),
        (up("{provider: ollama, settings: {truncat: true}}"), 'unknown key "truncat"; did you mean "truncate"?'),
        (up("{provider: ollama, settings: {truncate: 1}}"), "3:35: upstreams.up.settings.truncate: must be true or"),
        ("upstreams: {a/b: {provider: openai}}", "1:13: upstreams.a/b: must be 1 to 64 letters, digits, dots"),
        ("upstreams: {a: null}", "1:13: upstreams.a: must be a mapping"),
        (ROUTE + "targets: []", "3:5: routes[0].targets: must not be empty"),
        (ROUTE + "name: a", "3:5: routes[0].targets: is missing"),
        (ROUTE + "targets: [{upstream: up, weight: 1.5}]", "3:30: routes[0].targets[0].weight: must be a whole number"),
        (
            ROUTE + "{strategy: odd, targets: [{upstream: up}]}",
            "routes[0].strategy: must be 'ordered', 'weighted', 'least_",
        ),
        (ROUTE + "{match: {strem: true}, targets: [{upstream: up}]}", 'did you mean "stream"?'),
    ],
)
def test_each_kind_of_mistake(mistakes: Callable[..., list[str]], text: str, told: str) -> None:
    """One mistake, its line, column and path, and what to write instead."""
    (mistake,) = mistakes(text)
    assert told in mistake
