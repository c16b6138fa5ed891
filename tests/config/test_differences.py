"""What differs between configurations, what a running process cannot take over, and what is shown of one."""

from typing import Any

import pytest
from pydantic import SecretStr

from proxy.config import Config, differences, hold, shown
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits

Tree = dict[str, Any]


def tree(**more: Any) -> Tree:
    """Two upstreams and two routes."""
    upstreams = {name: {"provider": "openai", "api_key": f"sk-{name}"} for name in ("a", "b")}
    routes = [{"name": name, "match": {"model": name}, "targets": [{"upstream": name}]} for name in ("a", "b")]
    return {"upstreams": upstreams, "routes": routes, **more}


def config(whole: Tree) -> Config:
    return build(Document("test", whole), traits())


def told(old: Tree, new: Tree) -> list[str]:
    return [str(change) for change in differences(config(old), config(new))]


def altered(name: str, **more: Any) -> Tree:
    """The tree with one upstream altered."""
    whole = tree()
    whole["upstreams"][name] |= more
    return whole


def test_the_same_is_the_same() -> None:
    """Equal configurations do not differ, however they are written, and in whatever order upstreams stand."""
    turned = tree()
    turned["upstreams"] = dict(reversed(turned["upstreams"].items()))
    spelled = tree(server={"keep_alive_seconds": 15, "max_body_bytes": "64MiB", "callers": []}, cache={})
    spelled["routes"][0]["match"]["model"] = ["a"]
    for same in (tree(), turned, spelled):
        assert told(tree(), same) == []
        assert hold(config(tree()), config(same))[1] == []


@pytest.mark.parametrize(
    ("new", "changes"),
    [
        (altered("a", api_key="sk-x"), ["upstreams.a altered (api_key)"]),
        (altered("a", headers={"x": "1"}, query={"y": "2"}), ["upstreams.a altered (headers, query)"]),
        (altered("b", circuit={"window": 20}), ["upstreams.b altered (circuit)"]),
        (altered("b", settings={"retry_without": {"x": ["y"]}}), ["upstreams.b altered (settings)"]),
        (tree(server={"region": "eu", "drain_seconds": 1}), ["server altered (drain_seconds, region)"]),
        (tree(server={"callers": [{"name": "c", "key": "k"}]}), ["server.callers.c added"]),
        (tree(redis={"url": "redis://h"}), ["redis added"]),
        (tree(cache={"memory": {"ttl_seconds": 5}}), ["cache altered (memory)"]),
        (tree(cache={"redis": {"url": "redis://h"}}), ["cache altered (redis)"]),
        (tree(routes=tree()["routes"][:1]), ["routes.b removed"]),
        (tree(routes=tree()["routes"][::-1]), ["routes moved"]),
    ],
)
def test_each_kind_of_change(new: Tree, changes: list[str]) -> None:
    """Every change is told by its path, with the keys that were altered; the other way round by its opposite."""
    assert told(tree(), new) == changes
    opposites = {"added": "removed", "removed": "added"}
    assert told(new, tree()) == [" ".join(opposites.get(word, word) for word in each.split(" ")) for each in changes]


def test_routes_that_come_go_and_move() -> None:
    """A route that is put in between moves nobody; two that change places do, also beside one that has come."""
    first, second = tree()["routes"]
    third = {"name": "c", "match": {"model": "c"}, "targets": [{"upstream": "a"}]}
    assert told(tree(), tree(routes=[first, third, second])) == ["routes.c added"]
    assert told(tree(), tree(routes=[second, third, first])) == ["routes.c added", "routes moved"]
    assert told(tree(), tree(routes=[third])) == ["routes.a removed", "routes.b removed", "routes.c added"]


def test_a_rotated_caller() -> None:
    """A caller is known by its name: another key alters it, another name is another caller."""
    one, key, name = (
        tree(server={"callers": [{"name": who, "key": what}]}) for who, what in (("c", "1"), ("c", "2"), ("d", "1"))
    )
    assert told(one, key) == ["server.callers.c altered (key)"]
    assert told(one, name) == ["server.callers.c removed", "server.callers.d added"]


def test_no_value_is_told() -> None:
    """Changes name keys and no values: these may be secrets."""
    secret = "canary"
    news = [
        altered("a", api_key=secret, headers={secret: secret}, query={secret: secret}),
        tree(server={"admin_token": secret, "callers": [{"name": "c", "key": secret}]}),
        tree(redis={"url": f"redis://:{secret}@h"}, cache={"redis": {"url": f"redis://:{secret}@h"}}),
    ]
    for new in news:
        assert secret not in str(told(tree(), new)) + str(told(new, tree()))


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("server.listen", {"server": {"listen": ":1"}}),
        ("server.admin", {"server": {"admin": ":1"}}),
        ("server.workers", {"server": {"workers": 2}}),
        ("redis", {"redis": {"url": "redis://h"}}),
        ("cache.redis", {"cache": {"redis": {"url": "redis://h"}}}),
    ],
)
def test_what_is_held(path: str, more: Tree) -> None:
    """What only a new process can take stays as it was, is named, and keeps nothing else of the new one away."""
    old, new = config(tree()), config({**altered("a", api_key="sk-x"), **more})
    held, paths = hold(old, new)
    assert paths == [path]
    assert held == config(altered("a", api_key="sk-x"))
    assert new == config({**altered("a", api_key="sk-x"), **more})
    assert hold(new, old)[1] == [path]


def test_a_redis_that_serves_both() -> None:
    """A cache without an address of its own goes where the shared state is: both are named, and both are held."""
    old, new = (config(tree(redis={"url": f"redis://{host}"}, cache={"redis": {}})) for host in "xy")
    held, paths = hold(old, new)
    assert paths == ["redis", "cache.redis"]
    assert (held.redis, held.cache.redis) == (old.redis, old.cache.redis)


def test_everything_is_held_at_once() -> None:
    """All five together are named in the order of the file, and what stands beside them is taken."""
    server = {"listen": ":1", "admin": ":2", "workers": 3, "region": "eu"}
    cache = {"redis": {"url": "redis://y"}, "max_entry_bytes": 5}
    held, paths = hold(config(tree()), config(tree(server=server, redis={"url": "redis://x"}, cache=cache)))
    assert paths == ["server.listen", "server.admin", "server.workers", "redis", "cache.redis"]
    assert held == config(tree(server={"region": "eu"}, cache={"max_entry_bytes": 5}))


def test_what_is_shown_has_no_secrets_and_no_defaults() -> None:
    """Secrets are hidden, header and query names stay, and what nobody wrote is left out."""
    whole = altered("a", headers={"X-Team": "canary"}, query={"code": "canary"}, labels={"region": "eu"})
    whole["server"] = {"admin_token": "canary", "callers": [{"name": "c", "key": "canary"}], "listen": ":8080"}
    whole["redis"] = {"url": "redis://:canary@h"}
    whole["routes"][0]["targets"][0]["headers"] = {"x-t": "canary"}
    told = shown(config(whole))
    assert "canary" not in str(told)
    assert told["server"] == {
        "listen": ["0.0.0.0:8080"], "admin_token": "[hidden]", "callers": [{"name": "c", "key": "[hidden]"}],
    }  # fmt: skip
    upstream = told["upstreams"]["a"]
    assert (upstream["api_key"], upstream["labels"]) == ("[hidden]", {"region": "eu"})
    assert (upstream["headers"], upstream["query"]) == ({"x-team": "[hidden]"}, {"code": "[hidden]"})
    assert "circuit" not in upstream
    assert told["routes"][0]["targets"] == [{"upstream": "a", "headers": {"x-t": "[hidden]"}}]
    assert told["redis"] == {"url": "[hidden]"}


def test_every_secret_type_is_hidden() -> None:
    """Wherever a secret stands in lists, mappings and sections, it is hidden; other values are plain data."""
    value = {"a": [SecretStr("canary"), {"b": (SecretStr("canary"), 1, None, True)}], 2: "x"}
    assert shown(value) == {"a": ["[hidden]", {"b": ["[hidden]", 1, None, True]}], "2": "x"}
