"""Who may call changes at once; what only a new process can follow is told, and all else of the same file is taken."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream

KEEP: Tree = {"cache": {"any_temperature": True}}


def with_callers(simulator: Simulator, **keys: str) -> Tree:
    """Callers by their names, and their keys."""
    return one(simulator, server={"callers": [{"name": name, "key": key} for name, key in keys.items()]})


async def ask(sidecar: Live, key: str, path: str = "chat/completions", **headers: str) -> int:
    """The status of a call with a key, over a connection that is kept open."""
    body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}
    shown = {"authorization": f"Bearer {key}", **headers}
    method = "POST" if path == "chat/completions" else "GET"
    async with sidecar.http.request(method, f"{sidecar.url}/v1/{path}", json=body, headers=shown) as response:
        await response.read()
        return response.status


async def test_callers_come_and_go(live: StartLive, simulator: Simulator) -> None:
    """A key is good from the answer to the reload on, and no good from it on when it is taken out."""
    sidecar = await live(with_callers(simulator, one="k1"))
    assert [await ask(sidecar, key) for key in ("k1", "k2")] == [200, 401]
    await sidecar.take(with_callers(simulator, one="k1", two="k2"))
    assert [await ask(sidecar, key) for key in ("k1", "k2")] == [200, 200]
    await sidecar.take(with_callers(simulator, one="k3"))
    assert [await ask(sidecar, key) for key in ("k1", "k2", "k3")] == [401, 401, 200]
    assert await ask(sidecar, "k1", "models") == 401
    assert await ask(sidecar, "x", **{"x-octet-key": "k1"}) == 401
    await sidecar.take(one(simulator))
    assert await ask(sidecar, "anything") == 200


async def test_a_removed_callers_kept_answer(live: StartLive, simulator: Simulator) -> None:
    """Not even what is kept for it is given to a caller who has been taken out."""
    callers = [{"name": "one", "key": "k1"}, {"name": "two", "key": "k2"}]
    sidecar = await live(one(simulator, routes=[route("one", "a", **KEEP)], server={"callers": callers}))
    assert [await ask(sidecar, "k1") for _ in range(3)] == [200] * 3
    assert simulator.report.calls == 1
    await sidecar.take(one(simulator, routes=[route("one", "a", **KEEP)], server={"callers": callers[1:]}))
    assert [await ask(sidecar, "k1") for _ in range(2)] == [401] * 2
    assert simulator.report.calls == 1


async def test_a_callers_models_follow(live: StartLive, simulator: Simulator) -> None:
    """A caller that may no longer ask for a model is told so at once."""

    def tree(models: str) -> Tree:
        return one(simulator, server={"callers": [{"name": "one", "key": "k1", "models": models}]})

    sidecar = await live(tree("*"))
    assert await ask(sidecar, "k1") == 200
    await sidecar.take(tree("gpt-*"))
    assert await ask(sidecar, "k1") == 403


async def test_the_operators_token_follows(live: StartLive, simulator: Simulator) -> None:
    """The admin side goes by the token of now; a web page that shows the old one is refused."""
    sidecar = await live(one(simulator, server={"admin_token": "t1"}))

    async def steer(token: str) -> int:
        return (await sidecar.ask("GET", "/admin/config", authorization=f"Bearer {token}", origin="http://x"))[0]

    assert [await steer("t1"), await steer("t2")] == [200, 403]
    await sidecar.take(one(simulator, server={"admin_token": "t2"}))
    assert [await steer("t1"), await steer("t2")] == [403, 200]
    await sidecar.take(one(simulator))
    assert [await steer("t1"), await steer("t2")] == [403, 403]


HELD: Mapping[str, Tree] = {
    "server.listen": {"server": {"listen": ["127.0.0.1:0", "127.0.0.1:1"]}},
    "server.admin": {"server": {"admin": "127.0.0.1:1"}},
    "server.workers": {"server": {"workers": 2}},
    "redis": {"redis": {"url": "redis://127.0.0.1:1/0"}},
    "cache.redis": {"cache": {"redis": {"url": "redis://127.0.0.1:1/0"}}},
}


@pytest.mark.parametrize("path", HELD)
async def test_what_needs_a_restart(
    live: StartLive, simulator: Simulator, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, in the answer, the log and /admin/config; it is not taken, and everything else of the file is."""
    sidecar = await live(one(simulator))
    addresses, admin = list(sidecar.app.addresses), sidecar.app.admin
    tree = {**one(simulator, name="two"), **{key: value for key, value in HELD[path].items() if key != "server"}}
    tree["server"] |= {**HELD[path].get("server", {}), "max_body_bytes": 1024}
    tree["routes"][0] |= KEEP
    told = await sidecar.take(tree)
    assert told["needs_restart"] == [path]
    assert "routes.two added" in told["changes"]
    assert any(path in record.message and "next start" in record.message for record in caplog.records)
    assert (await sidecar.ask("GET", "/admin/config"))[1]["reloads"][0]["needs_restart"] == [path]
    assert (await sidecar.told("two"))[0] == 200
    assert (await sidecar.told("two", user="x" * 2000))[0] == 413
    assert (sidecar.app.addresses, sidecar.app.admin) == (addresses, admin)
    assert sidecar.app.upstreams._shared is None
    assert sidecar.app.upstreams.shelf is not None
    assert sidecar.app.upstreams.shelf.redis is None
    again = await sidecar.take(one(simulator, name="three"))
    assert again["needs_restart"] == []


async def test_a_pending_restart_is_told_again(live: StartLive, simulator: Simulator) -> None:
    """As long as the file asks for it each reload says that a restart is needed."""
    sidecar = await live(one(simulator))
    for name in ("two", "three"):
        told = await sidecar.take(one(simulator, name=name, server={"workers": 2}))
        assert told["needs_restart"] == ["server.workers"]


async def test_what_is_held_is_not_shown_as_in_force(live: StartLive, simulator: Simulator) -> None:
    """/admin/config shows what is in force; what waits for a restart is not."""
    sidecar = await live(one(simulator))
    await sidecar.take(one(simulator, server={"workers": 2}))
    shown = (await sidecar.ask("GET", "/admin/config"))[1]
    assert shown["config"]["server"].get("workers", 1) == 1


async def test_redis_that_is_taken_out_stays(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """A Redis that the file no longer names is used until the restart, and the reload says so."""
    shared: Tree = {"redis": {"url": redis.url}, "cache": {"redis": {}}}
    sidecar = await live(one(simulator, **shared))
    state = sidecar.app.upstreams._shared
    told = await sidecar.take(one(simulator))
    assert told["needs_restart"] == ["redis", "cache.redis"]
    assert sidecar.app.upstreams._shared is state
    assert state is not None


SERVER: list[tuple[Tree, int]] = [
    ({"max_body_bytes": 64}, 413),
    ({"allowed_hosts": ["only.example"]}, 403),
    ({"callers": [{"name": "x", "key": "k9"}]}, 401),
    ({"max_connections": 1}, 200),
]


@pytest.mark.parametrize(("server", "status"), SERVER, ids=str)
async def test_other_settings_of_the_server(live: StartLive, simulator: Simulator, server: Tree, status: int) -> None:
    """Bounds, hosts and callers of the server hold from the next call on, and are taken back likewise."""
    sidecar = await live(one(simulator))
    assert await ask(sidecar, "any") == 200
    told = await sidecar.take(one(simulator, server=server))
    assert told["changes"][0].startswith("server")
    assert await ask(sidecar, "any") == status
    await sidecar.take(one(simulator))
    assert await ask(sidecar, "any") == 200


async def test_cors_follows(live: StartLive, simulator: Simulator) -> None:
    """An origin that may call now gets its headers, also one that is taken out."""
    sidecar = await live(one(simulator))

    async def allowed() -> Any:
        async with sidecar.http.get(f"{sidecar.url}/v1/models", headers={"origin": "https://a.example"}) as response:
            return response.headers.get("access-control-allow-origin")

    assert await allowed() is None
    await sidecar.take(one(simulator, server={"cors_origins": ["https://a.example"]}))
    assert await allowed() == "https://a.example"
    await sidecar.take(one(simulator))
    assert await allowed() is None


async def test_the_drain_follows(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """How long calls may go on at the end is what the file says at the end."""
    sidecar = await live(one(simulator))
    await sidecar.take(one(simulator, server={"drain_seconds": 0.25}))
    assert sidecar.app.pipeline.snapshot.config.server.drain_seconds == 0.25


async def test_models_that_are_listed(live: StartLive, simulator: Simulator) -> None:
    """/v1/models shows the names of the new routes, and of upstreams that have come, and of none that is gone."""
    sidecar = await live(one(simulator))

    async def listed() -> set[str]:
        async with sidecar.http.get(f"{sidecar.url}/v1/models") as response:
            return {model["id"] for model in (await response.json())["data"]}

    assert await listed() == {"one"}
    tree = one(simulator, upstreams={"local": upstream(simulator, "ollama")})
    tree["routes"] = [route("two", "local")]
    await sidecar.take(tree)
    while not any(name.startswith("local/") for name in await listed()):
        pass
    assert "two" in await listed()
    await sidecar.take(one(simulator))
    assert await listed() == {"one"}
