"""A secret of the configuration is nowhere but where it goes: not on the admin side, in a log, or in a mistake."""

import logging
from pathlib import Path

import pytest

from proxy.simulator import Simulator
from tests.reload.conftest import StartLive, Tree, one, route, upstream, written

CANARY = "canary-7f3a91"


def secret(place: str) -> str:
    return f"{CANARY}-{place}"


def full(simulator: Simulator, file: Path) -> Tree:
    """A configuration with a secret in every place that may hold one."""
    tree = one(
        simulator,
        settings={
            "api_key": secret("key"),
            "headers": {"x-token": secret("header")},
            "query": {"code": secret("query")},
        },
        server={
            "admin_token": secret("token"),
            "callers": [{"name": "c", "key": secret("caller")}],
            "direct_models": True,
        },
        redis={"url": f"redis://user:{secret('redis')}@127.0.0.1:1/0"},
        cache={"redis": {"url": f"redis://:{secret('tier')}@127.0.0.1:1/1"}},
    )
    tree["upstreams"]["file"] = upstream(simulator, "vllm", api_key_file=str(file))
    del tree["upstreams"]["file"]["api_key"]
    headers = {"x-route": secret("route")}
    tree["routes"] = [
        route(
            "one",
            {"upstream": "a", "headers": headers},
            fallback=[{"upstream": "file", "headers": headers}],
            mirror={"upstream": "file", "headers": headers},
            canary={"upstream": "file", "share": 0.5, "headers": headers},
            cache={"any_temperature": True},
        )
    ]
    return tree


async def test_no_secret_is_told(
    live: StartLive, simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in /admin/config, explain, calls, upstreams, metrics, nor in logs and answers to reloads, good or bad."""
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(secret("file"))
    tree, told = full(simulator, file), list[str]()
    sidecar = await live(tree)
    shown = {"authorization": f"Bearer {secret('token')}"}

    async def look() -> None:
        for page in ("config", "calls", "upstreams", "cache"):
            told.append(str(await sidecar.ask("GET", f"/admin/{page}", **shown)))
        asked = {"model": "one", "caller": "c"}
        told.append(str(await sidecar.ask("POST", "/admin/explain", asked)))
        told.append(str(await sidecar.ask("POST", "/admin/explain", {**asked, "caller": secret("caller")})))
        async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
            told.append(await response.text())

    async def call() -> None:
        body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {secret('caller')}", "x-request-id": "known"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            told.append(f"{response.headers} {await response.text()}")
            assert response.status == 200
        told.append(str(await sidecar.ask("GET", "/admin/calls/known")))

    await look()
    await call()
    file.write_text(secret("file-2"))
    told.append(str(await sidecar.reload()))
    for place in ("key", "header", "query", "token", "caller", "redis", "tier", "route"):
        text = written(tree).replace(secret(place).encode(), secret(f"{place}-2").encode())
        told.append(str(await sidecar.reload(text)))
        told.append(str(await sidecar.reload(text.replace(b"routes:", b"rotues:"))))
    await call()
    file.write_text(secret("file-3") + "\n" + secret("more"))
    told.append(str(await sidecar.reload()))
    shown["authorization"] = f"Bearer {secret('token-2')}"
    await look()
    told += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    told += [str(line) for line in sidecar.lines.kept]
    assert [text for text in told if CANARY in text] == []
    assert "[hidden]" in told[0]


GOOD = """\
server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}
upstreams:
  a: {provider: openai, api_key: sk}
routes: []
"""
SPOILT = {  # what a tired operator writes where a secret belongs
    "a list": "api_key: [canary-7f3a91]",
    "a mapping": "api_key: {value: canary-7f3a91}",
    "two lines": 'api_key: "canary-7f3a91\\ncanary-7f3a91"',
    "a header with a line end": 'headers: {x-a: "canary-7f3a91\\n"}',
    "a header that is a list": "headers: {x-a: [canary-7f3a91]}",
    "a query that is a list": "query: {x-a: [canary-7f3a91]}",
    "a key and its file": "api_key: canary-7f3a91, api_key_file: /nowhere",
    "a user in the address": 'base_url: "https://user:canary-7f3a91@host"',
    "a query in the address": 'base_url: "https://host?key=canary-7f3a91"',
    "a user of the HTTP proxy": 'proxy: "http://user:canary-7f3a91@host"',
    "an alias": "api_key: *canary-7f3a91",
    "a variable": "api_key: ${NO_SUCH_KEY}canary-7f3a91",
    "a quote without its end": 'api_key: "canary-7f3a91',
    "a tag": "api_key: !secret canary-7f3a91",
}
GLUED = {  # no space behind the colon
    "a key": "api_key:canary-7f3a91",
    "a header": "headers: {authorization:canary-7f3a91}",
    "a query": "query: {code:canary-7f3a91}",
    "in the wrong place": 'auth_header: "Bearer canary-7f3a91"',
}
ELSEWHERE = {
    "redis": "redis: {url: 'redis://:canary-7f3a91@host:port/x'}\n",
    "the cache's redis": "cache: {redis: {url: 'http://:canary-7f3a91@host'}}\n",
    "a caller": "server: {callers: [{name: c, key: [canary-7f3a91]}]}\n",
    "two callers of one key": "server: {callers: [{name: c, key: canary-7f3a91}, {name: d, key: canary-7f3a91}]}\n",
    "the token": "server: {admin_token: {canary-7f3a91: 1}}\n",
}


async def mistakes_of(live: StartLive, simulator: Simulator, text: str, caplog: pytest.LogCaptureFixture) -> str:
    """All that is told of a bad file, anywhere."""
    sidecar = await live(one(simulator))
    told = await sidecar.reload(text)
    assert told["mistakes"]
    shown = str(await sidecar.ask("GET", "/admin/config"))
    return str(told) + shown + "".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("case", [*SPOILT, *ELSEWHERE])
async def test_no_secret_in_a_mistake(
    live: StartLive, simulator: Simulator, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """However a secret is spoilt, the mistake does not quote it."""
    if case in SPOILT:
        text = GOOD.replace("api_key: sk", SPOILT[case])
    else:
        section = ELSEWHERE[case]
        text = (GOOD if not section.startswith("server") else GOOD.split("\n", 1)[1]) + section
    assert CANARY not in await mistakes_of(live, simulator, text, caplog)


@pytest.mark.parametrize("case", GLUED)
async def test_no_secret_that_is_glued_to_its_key(
    live: StartLive, simulator: Simulator, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """`api_key:SECRET` in braces is one word to YAML, and an unknown key: it is not quoted whole."""
    text = GOOD.replace("api_key: sk", GLUED[case]).replace("routes: []", "routes: {}")
    assert CANARY not in await mistakes_of(live, simulator, text, caplog)
