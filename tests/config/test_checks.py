"""What must agree between the parts of a configuration does, or is told with its place."""

from collections.abc import Callable

import pytest

from proxy.config import Config, is_metadata_address

UP = "upstreams: {up: {provider: openai}}\n"
ROUTE = UP + "routes:\n  - "


def up(settings: str) -> str:
    """A file with one upstream; its settings begin on line 3, column 5."""
    return f"upstreams:\n  up:\n    {settings}\n"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("provider: opnai", 'octet.yaml:3:5: upstreams.up.provider: unknown provider "opnai"; did you mean "openai"?'),
        ("provider: zzz", '3:5: upstreams.up.provider: unknown provider "zzz"; known: anthropic, ollama, openai, vllm'),
        ("{provider: openai, circuit: {window: 4}}", "circuit.window: minimum_calls must be at most window"),
        ("{provider: openai, circuit: {minimum_calls: 11}}", "circuit.minimum_calls: minimum_calls must be at most"),
        (
            "{provider: openai, circuit: {slow_call_rate: 0.5}}",
            "slow_call_rate: does nothing without slow_call_seconds",
        ),
        ("{provider: openai, limits: {concurrent: 0}}", "limits.concurrent: must be at least 1; leave the key out"),
        ("{provider: openai, limits: {tokens_per_minute: -5}}", "limits.tokens_per_minute: must be at least 1"),
        ("{provider: ollama, wire: exact}", "3:24: upstreams.up.wire: ollama can only be normalise"),
        ("provider: vllm", "2:3: upstreams.up.base_url: is missing: vllm has no public address"),
        ("{provider: openai, api_key_file: /nope}", '3:24: upstreams.up.api_key_file: there is no file "/nope"'),
        ("{provider: openai, tls: {ca_file: /nope}}", '3:30: upstreams.up.tls.ca_file: there is no file "/nope"'),
        (
            '{provider: openai, base_url: "http://169.254.169.254/v1"}',
            "3:24: upstreams.up.base_url: is an address where clouds hand out credentials; allow_metadata_addresses",
        ),
        (
            '{provider: openai, proxy: "http://[fd00:ec2::254]:3128"}',
            "3:24: upstreams.up.proxy: is an address where clouds hand out credentials",
        ),
        (
            "{provider: openai, credential: caller, api_key: k}",
            "3:24: upstreams.up.credential: with credential: caller",
        ),
    ],
)
def test_what_an_upstream_needs(mistakes: Callable[..., list[str]], settings: str, told: str) -> None:
    """Its provider is known and speaks its wire; its address and files are there; one key, or the caller's."""
    (mistake,) = mistakes(up(settings))
    assert told in mistake


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{provider: openai, api_key: k, api_key_file: /nope}", "upstreams.up.api_key_file: api_key is given too"),
        ("{provider: openai, tls: {key_file: /nope}}", "upstreams.up.tls.key_file: cert_file is missing beside it"),
    ],
)
def test_two_mistakes_of_one_key_are_both_told(mistakes: Callable[..., list[str]], settings: str, told: str) -> None:
    """One does not hide the other."""
    missing, other = sorted(mistakes(up(settings)), key=lambda mistake: "there is no file" not in mistake)
    assert 'there is no file "/nope"' in missing
    assert told in other


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ("targets: [{upstream: u}]", '3:16: routes[0].targets[0].upstream: unknown upstream "u"; did you mean "up"?'),
        (
            "{targets: [{upstream: up}], fallback: [{upstream: x}]}",
            '3:45: routes[0].fallback[0].upstream: unknown upstream "x"; known: up',
        ),
        (
            "{strategy: weighted, targets: [{upstream: up, weight: 0}]}",
            "3:26: routes[0].targets: every weight is 0: no target could ever be chosen",
        ),
        (
            "{targets: [{upstream: up}], fallback_on: [context]}",
            "3:33: routes[0].fallback_on: does nothing without fallback targets",
        ),
        ("{targets: [{upstream: up}], hedge: {}}", "3:33: routes[0].hedge: does nothing: there is no second target"),
        ("{match: {caller: x}, targets: [{upstream: up}]}", '3:14: routes[0].match.caller: unknown caller "x"'),
        (
            "targets: [{upstream: up}]\n  - targets: [{upstream: up}]",
            "4:5: routes[1]: can never match: routes[0] takes all its calls first",
        ),
    ],
)
def test_what_a_route_needs(mistakes: Callable[..., list[str]], route: str, told: str) -> None:
    """Its upstreams and callers exist, a target can be chosen, and some call can reach it."""
    assert mistakes(ROUTE + route) == ["octet.yaml:" + told]


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("{max_body_bytes: 1GiB}", "2:10: server.max_body_bytes"),
        ("{max_body_bytes: 2KiB, max_buffered_bytes: 2047}", "2:32: server.max_buffered_bytes"),
    ],
)
def test_one_body_fits_into_the_room_for_all(mistakes: Callable[..., list[str]], server: str, told: str) -> None:
    """Else no body of the allowed size could ever be taken."""
    text = ": max_buffered_bytes must be at least max_body_bytes, or no such body fits"
    assert mistakes(f"{UP}server: {server}") == [f"octet.yaml:{told}{text}"]


def test_the_room_for_all_may_be_that_for_one(config: Callable[..., Config]) -> None:
    """One call at a time, then."""
    assert config(UP + "server: {max_body_bytes: 2KiB, max_buffered_bytes: 2048}").server.max_buffered_bytes == 2048


def test_there_is_an_upstream(mistakes: Callable[..., list[str]]) -> None:
    """A configuration without upstreams serves nobody."""
    assert mistakes("\nupstreams: {}") == ["octet.yaml:2:1: upstreams: must name at least one upstream"]


@pytest.mark.parametrize(
    ("first", "second", "reachable"),
    [
        ("{model: 'gpt-*'}", "{model: 'gpt-4*'}", False),
        ("{model: 'gpt-*'}", "{model: [gpt-4, gpt-5]}", False),
        ("{model: 'gpt-*'}", "{model: [gpt-4, o3]}", True),
        ("{model: ['gpt-*', o3]}", "{model: [gpt-4, o3]}", False),
        ("{model: 'gpt-4*'}", "{model: 'gpt-*'}", True),
        ("{model: 'gpt-*', stream: true}", "{model: gpt-4}", True),
        ("{stream: true}", "{model: gpt-4, stream: true}", False),
        ("{headers: {X-A: '1'}}", "{model: gpt-4, headers: {x-a: '1', x-b: '2'}}", False),
        ("{headers: {x-a: '1'}}", "{headers: {x-a: '2'}}", True),
        ("{model: '[a-c]*'}", "{model: '[a-b]*'}", True),
        ("{model: 'a?c'}", "{model: 'abc'}", True),
        ("{}", "{model: gpt-4}", False),
    ],
)
def test_a_rule_that_can_never_match_is_a_mistake(
    config: Callable[..., Config], mistakes: Callable[..., list[str]], first: str, second: str, reachable: bool
) -> None:
    """Where it is certain that an earlier rule takes all its calls; in doubt the rule stays."""
    rule = "{match: %s, targets: [{upstream: up}]}"
    text = ROUTE + rule % first + "\n  - " + rule % second
    if reachable:
        assert len(config(text).routes) == 2
    else:
        assert [mistake.partition(": ")[2] for mistake in mistakes(text)] == [
            "routes[1]: can never match: routes[0] takes all its calls first"
        ]


def test_what_stands_twice_is_a_mistake(mistakes: Callable[..., list[str]]) -> None:
    """Names of routes and callers, and callers' keys, are each one's own; the key itself is not shown."""
    told = mistakes(
        "server: {callers: [{name: a, key: s3cret}, {name: a, key: s3cret}]}\n"
        + UP
        + "routes:\n  - {name: r, match: {model: x}, targets: [{upstream: up}]}\n"
        "  - {name: r, targets: [{upstream: up}]}"
    )
    assert [mistake.split(": ")[1] for mistake in told] == [
        "server.callers[1].name",
        "server.callers[1].key",
        "routes[1].name",
    ]
    assert "s3cret" not in "".join(told)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0", "redis://h", "redis://:p%40ss@[::1]:6379/3", "rediss://u:p@h/1", "redis://h/?db=2",
        "unix:///run/redis.sock", "unix:///run/redis.sock?db=1",
    ],
)  # fmt: skip
def test_where_redis_may_be(config: Callable[..., Config], url: str) -> None:
    """As redis-py takes it."""
    assert config(f"{UP}redis: {{url: '{url}'}}").redis is not None


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/abc", "redis://h/-1", "redis://h/0/extra", "redis://h#x", "redis://h?socket_timeout=60", "http://h",
        "redis://h?decode_responses=true", "redis://h?db=x", "redis://", "unix://", "redis://h:0", "sentinel://h",
    ],
)  # fmt: skip
def test_where_redis_cannot_be(mistakes: Callable[..., list[str]], url: str) -> None:
    """What redis-py would stumble over later, or what would change how it is asked, is told at once."""
    (told,) = mistakes(f"{UP}redis: {{url: '{url}'}}")
    assert "redis.url: write a URL such as redis://host:6379/0" in told


@pytest.mark.parametrize(
    ("host", "metadata"),
    [
        ("169.254.169.254", True),
        ("169.254.170.23", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("Metadata.Google.Internal.", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("fd00:ec3::254", False),
        ("100.100.100.201", False),
        ("169.253.255.255", False),
        ("64:ff9b::a00:1", False),
        ("api.openai.com", False),
        ("", False),
    ],
)
def test_what_a_metadata_address_is(host: str, metadata: bool) -> None:
    """Link-local addresses and those that single clouds chose, in every spelling of IPv6; no other."""
    assert is_metadata_address(host) is metadata


def test_metadata_addresses_can_be_allowed(config: Callable[..., Config]) -> None:
    """Who means it says so."""
    settings = '{provider: openai, base_url: "http://169.254.169.254/v1", allow_metadata_addresses: true}'
    assert config(up(settings)).upstreams["up"].allow_metadata_addresses
