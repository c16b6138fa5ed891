"""Where a call goes, and for whom, stands in its key."""

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.cache.key import (
    NOBODY,
    SHARED,
    digest_of_body,
    is_answered_by,
    place_of,
    takes_callers_keys,
    tenant_of,
    upstream_digest,
)
from proxy.call import Call, Caller
from proxy.config import Upstream
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.providers.seam import Route, Target

NO_HEADERS: Mapping[str, str] = {}
BASE: dict[str, Any] = {"provider": "openai", "base_url": "http://one/v1"}


def upstreams(**settings: dict[str, Any]) -> Mapping[str, Upstream]:
    return build(Document("test", {"upstreams": settings}), traits()).upstreams


UPS = upstreams(a=BASE, b={**BASE, "base_url": "http://two/v1"}, c=BASE)
A, B, C = (Target(name, UPS[name], "m") for name in "abc")


def place(*targets: Target, name: str = "r", fallback_from: int = 0, operation: str = "chat") -> bytes:
    digests = {target.name: upstream_digest(target.upstream) for target in targets}
    return place_of(Route(name, targets, primary=targets[:fallback_from]), operation, digests)


def test_the_set_of_targets_counts() -> None:
    """Their order and repetition do not matter; which they are does."""
    assert place(A, B) == place(B, A) == place(A, B, A)
    assert len({place(A), place(B), place(C), place(A, B), place(A, C)}) == 5


def test_the_model_of_a_target_counts() -> None:
    """The same upstream with another model answers otherwise."""
    assert place(A) != place(Target("a", UPS["a"], "n"))


def test_fallbacks_do_not_count() -> None:
    """Their answers are not kept."""
    assert place(A, B, fallback_from=1) == place(A, C, fallback_from=1) == place(A)
    assert place(A, B, C, fallback_from=2) == place(A, B)


def test_route_and_operation_count() -> None:
    """A chat is no completion, and one route no other."""
    assert len({place(A), place(A, name="s"), place(A, operation="completions"), place(A, operation="embeddings")}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://other/v1"},
        {"headers": {"x-a": "1"}},
        {"query": {"api-version": "1"}},
        {"provider": "vllm"},
        {"provider": "ollama", "settings": {"truncate": True}},
    ],
)
def test_what_of_an_upstream_counts(change: dict[str, Any]) -> None:
    """Dialect, address, query, headers and the provider's own settings."""
    one, other = upstreams(a=BASE)["a"], upstreams(a={**BASE, **change})["a"]
    assert upstream_digest(one) != upstream_digest(other)


def test_settings_of_an_upstream_count() -> None:
    """Two of one provider that differ in nothing else."""
    ollama = {"provider": "ollama", "base_url": "http://one"}
    settings = [{}, {"truncate": True}, {"options": {"num_ctx": 2048}}, {"options": {"num_ctx": 4096}}]
    assert len({upstream_digest(upstreams(a={**ollama, "settings": each})["a"]) for each in settings}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "k"},
        {"max_connections": 3},
        {"timeouts": {"idle_seconds": 3}},
        {"limits": {"concurrent": 3}},
        {"circuit": {"minimum_calls": 1}},
        {"prices": {"*": {"input_per_million": 1}}},
    ],
)
def test_what_of_an_upstream_does_not_count(change: dict[str, Any]) -> None:
    """Keys, limits, clocks and prices may change, and answers stay."""
    assert upstream_digest(upstreams(a=BASE)["a"]) == upstream_digest(upstreams(a={**BASE, **change})["a"])


def test_the_order_of_headers_does_not_count() -> None:
    """Nor does that of the query."""
    one = upstreams(a={**BASE, "headers": {"x-a": "1", "x-b": "2"}, "query": {"a": "1", "b": "2"}})["a"]
    other = upstreams(a={**BASE, "headers": {"x-b": "2", "x-a": "1"}, "query": {"b": "2", "a": "1"}})["a"]
    assert upstream_digest(one) == upstream_digest(other)


def test_nothing_of_an_upstream_is_told() -> None:
    """Headers may hold secrets: only a digest of them leaves."""
    told = upstream_digest(upstreams(a={**BASE, "headers": {"x-a": "s3cret"}})["a"])
    assert b"s3cret" not in told
    assert b"one" not in told


@pytest.mark.parametrize(
    ("fallback_from", "target", "answered"),
    [(0, A, True), (0, B, True), (0, C, False), (1, A, True), (1, B, False), (1, Target("a", UPS["a"], "m"), False)],
)
def test_whose_answers_are_kept(fallback_from: int, target: Target, answered: bool) -> None:
    """Those of the route's own targets; a fallback may be called the same and is another all the same."""
    assert is_answered_by(Route("r", (A, B), primary=(A, B)[:fallback_from]), target) is answered


def test_whose_keys_go_upstream() -> None:
    """It counts where answers are kept, and nowhere else."""
    passing = Target("p", upstreams(p={**BASE, "credential": "caller"})["p"], "m")
    assert takes_callers_keys(Route("r", (A, passing)))
    assert not takes_callers_keys(Route("r", (A, B)))
    assert not takes_callers_keys(Route("r", (A, passing), primary=(A,)))


def tenant(
    name: str | None = None,
    key: str | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    shared: bool = False,
    own_key: bool = True,
) -> str:
    call = Call("c", 0.0, b"{}", {}, "m", False, False, Caller(name, (), key), headers)
    return tenant_of(call, shared=shared, own_key=own_key)


def test_tenants_by_name() -> None:
    """A caller who is known; else everybody is the same nobody."""
    assert tenant("ann", own_key=False) == tenant("ann", "sk-1", own_key=False) == tenant("ann") == "ann"
    assert tenant(own_key=False) == tenant(key="sk-1", own_key=False) == tenant() == NOBODY


def test_tenants_by_credential() -> None:
    """Where callers' keys go upstream, each key is a tenant of each caller's, of each account."""
    account = {"openai-organization": "o"}
    project = {"openai-project": "o"}
    told = [
        tenant(name, key, headers)
        for name in (None, "ann", "bob")
        for key in ("sk-1", "sk-2")
        for headers in ({}, account, project)
    ]
    assert len(set(told)) == len(told)
    assert all("sk-" not in each for each in told)
    assert tenant("ann", "sk-1") == tenant("ann", "sk-1")


def test_an_odd_credential() -> None:
    """Bytes that are no text tell tenants apart like any other."""
    assert tenant(key="sk-\udcff") != tenant(key="sk-\udcfe")


def test_shared_answers() -> None:
    """Where a route says so, everybody is one tenant, and nobody else is."""
    assert tenant("ann", "sk-1", shared=True) == tenant(shared=True) == SHARED
    assert SHARED not in {NOBODY, tenant("ann"), tenant("ann", "sk-1")}


def test_bodies_have_their_own_digests() -> None:
    """Of the bytes as they are."""
    assert digest_of_body(b"{}") != digest_of_body(b"{} ")
