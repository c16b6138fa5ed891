"""Addresses of Redis are read as people write them; what is none is refused without showing what it held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.redis_url import RedisPlace, parse_redis_url


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", RedisPlace("server", (("h", 6379),))),
        ("redis://h/", RedisPlace("server", (("h", 6379),))),
        ("redis://h:7000/3", RedisPlace("server", (("h", 7000),), db=3)),
        ("redis://h?db=2", RedisPlace("server", (("h", 6379),), db=2)),
        ("redis://h/?db=2", RedisPlace("server", (("h", 6379),), db=2)),
        ("  redis://h\n", RedisPlace("server", (("h", 6379),))),
        ("redis://10.0.0.1:1", RedisPlace("server", (("10.0.0.1", 1),))),
        ("redis://[::1]:65535/0", RedisPlace("server", (("::1", 65535),))),
        ("redis://[fe80::1]", RedisPlace("server", (("fe80::1", 6379),))),
        ("redis://my-redis_1.svc.local", RedisPlace("server", (("my-redis_1.svc.local", 6379),))),
        ("rediss://h", RedisPlace("server", (("h", 6379),), tls=True)),
        ("redis://:pass@h", RedisPlace("server", (("h", 6379),), password="pass")),
        ("redis://u:pass@h", RedisPlace("server", (("h", 6379),), username="u", password="pass")),
        ("redis://u@h", RedisPlace("server", (("h", 6379),), username="u")),
        ("redis://u%40:p%2F%3A%40%C3%A9@h", RedisPlace("server", (("h", 6379),), username="u@", password="p/:@é")),
        ("redis://:a:b@h", RedisPlace("server", (("h", 6379),), password="a:b")),
        ("redis://:@h", RedisPlace("server", (("h", 6379),))),
        ("unix:///run/redis.sock", RedisPlace("server", path="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=4", RedisPlace("server", path="/run/a b.sock", db=4)),
        ("unix://u:p@/run/r.sock", RedisPlace("server", path="/run/r.sock", username="u", password="p")),
        ("redis+sentinel://h/main", RedisPlace("sentinel", (("h", 26379),), service="main")),
        (
            "redis+sentinel://:p@a:1,b,[::1]:2/main.1-x/5",
            RedisPlace("sentinel", (("a", 1), ("b", 26379), ("::1", 2)), service="main.1-x", db=5, password="p"),
        ),
        ("rediss+sentinel://h/main?db=1", RedisPlace("sentinel", (("h", 26379),), service="main", db=1, tls=True)),
        ("redis+cluster://a,b:7000", RedisPlace("cluster", (("a", 6379), ("b", 7000)))),
        ("redis+cluster://a/0", RedisPlace("cluster", (("a", 6379),))),
        ("rediss+cluster://u:p@a/", RedisPlace("cluster", (("a", 6379),), username="u", password="p", tls=True)),
    ],
)  # fmt: skip
def test_what_is_an_address(url: str, place: RedisPlace) -> None:
    """One server, sentinels or a cluster, with all that an address can say."""
    assert parse_redis_url(url) == place


BAD = [
    "", " ", "h", "h:6379", "http://h", "redis:/h", "redis:h", "//h", "redis://", "redis:///0", "redis://:6379",
    "redis://h:0", "redis://h:65536", "redis://h:x", "redis://h:-1", "redis://h:123456", "redis://h/x", "redis://h/-1",
    "redis://h/0/1", "redis://h/123456", "redis://h#x", "redis://h?db=x", "redis://h?db=", "redis://h?db=1&x=2",
    "redis://h?socket_timeout=5", "redis://a,b", "redis://::1", "redis://[::1", "redis://[h]", "redis://h h", "redis://h\x00",
    "redis://h\nx", "redis://a@b@c", "redis://é", "REDIS://h", "redis+tls://h", "sentinel://h/main", "unix://",
    "unix:///", "unix://h/run/r.sock", "unix:/run/r.sock", "redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///main",
    "redis+sentinel://a,,b/main", "redis+sentinel://h/main/x", "redis+sentinel://h/main/0/0", "redis+sentinel://h/a b",
    "redis+cluster://", "redis+cluster://a,", "redis+cluster://h/1", "redis+cluster://h/main", "unix+sentinel://h/main",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_address(url: str) -> None:
    """It is said how one is written."""
    with pytest.raises(ValueError, match="write a URL such as redis://host:6379/0"):
        parse_redis_url(url)


def test_a_cluster_has_one_database() -> None:
    """However another one is asked for."""
    with pytest.raises(ValueError, match="write a URL"):
        parse_redis_url("redis+cluster://h?db=3")


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cret@h:x",
        "redis://:s3cret@a,b",
        "unix://:s3cret@h/x",
        "redis+sentinel://:s3cret@h",
        "x://:s3cret@h",
    ],
)
def test_secrets_are_not_told(url: str) -> None:
    """What is refused is not quoted."""
    with pytest.raises(ValueError, match="write a URL") as caught:
        parse_redis_url(url)
    error = caught.value
    assert "s3cret" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


def test_a_place_hides_its_secrets() -> None:
    """A log that shows where Redis is shows no more."""
    told = repr(parse_redis_url("redis://ann:s3cret@h"))
    assert "s3cret" not in told
    assert "ann" not in told
    assert "'h'" in told


@given(url=st.text(max_size=40) | st.text("redis:/@,[]+?=%0123 \n", max_size=40).map(lambda rest: f"redis://{rest}"))
def test_any_text(url: str) -> None:
    """It is an address, or no address."""
    try:
        place = parse_redis_url(url)
    except ValueError:
        return
    assert all(0 < port < 65536 for _, port in place.hosts)
    assert place.hosts or place.path
