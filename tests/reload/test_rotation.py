"""Keys and certificates in files of their own change while the configuration stays the same."""

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from proxy.__main__ import main
from proxy.simulator import Simulator
from tests.conftest import last_call
from tests.reload.conftest import Live, StartLive, Tree, one
from tests.upstream.conftest import COMPLETION
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hi"}]
Served = Callable[[trustme.CA, list[str]], Awaitable[str]]


def keyed(simulator: Simulator, file: Path) -> Tree:
    """One upstream, whose key is in a file."""
    tree = one(simulator, settings={"api_key_file": str(file)})
    del tree["upstreams"]["a"]["api_key"]
    return tree


async def sent(sidecar: Live, simulator: Simulator) -> str:
    """The key that goes upstream now."""
    assert (await sidecar.told())[0] == 200
    return last_call(simulator).headers["authorization"]


async def test_a_key_file_that_rotates(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """A new key goes upstream as soon as it is noticed, over the connection there was; the file is the same."""
    file = tmp_path / "key"
    file.write_text("sk-first\n")
    sidecar = await live(keyed(simulator, file), watch=True)
    assert await sent(sidecar, simulator) == "Bearer sk-first"
    for number, key in enumerate(("sk-second", "sk-third"), 2):
        file.write_text(key)
        await until(lambda number=number: sidecar.generation == number)  # type: ignore[misc]
        assert await sent(sidecar, simulator) == f"Bearer {key}"
    shown = (await sidecar.ask("GET", "/admin/config"))[1]["reloads"]
    assert [each["changes"] for each in shown] == [["keys or certificates altered"]] * 2
    assert simulator.report.open_connections == 1


async def test_a_mounted_secret_that_is_swapped(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """A key behind links that are re-pointed, as in a mounted Secret, is a new key."""
    for version, key in (("..1", "sk-first"), ("..2", "sk-second")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(key)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    sidecar = await live(keyed(simulator, tmp_path / "key"), watch=True)
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    await until(lambda: sidecar.generation == 2)
    assert await sent(sidecar, simulator) == "Bearer sk-second"


async def test_a_key_file_that_vanishes(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """Without its file the old key stays in use and the metric says so; when the file is back so is the metric."""
    file = tmp_path / "key"
    file.write_text("sk-first")
    sidecar = await live(keyed(simulator, file), watch=True)
    reloader = sidecar.app.reloader
    file.unlink()
    await until(lambda: len(reloader._attempts) == 1)
    (failed,) = reloader.describe()["reloads"]
    assert (failed["ok"], len(failed["mistakes"])) == (False, 1)
    assert f'upstreams.a.api_key_file: there is no file "{file}"'[:60] in failed["mistakes"][0]
    assert await sidecar.metric("octet_config_last_reload_successful") == 0
    assert await sent(sidecar, simulator) == "Bearer sk-first"
    file.write_text("sk-first")
    assert await until_good(sidecar) == 1
    assert sidecar.generation == 1
    file.unlink()
    await until(lambda: len(reloader._attempts) == 2)
    file.write_text("sk-second")
    await until(lambda: sidecar.generation == 2)
    assert await sent(sidecar, simulator) == "Bearer sk-second"


async def until_good(sidecar: Live) -> float:
    """The metric, once it is not 0 any more."""
    while not (good := await sidecar.metric("octet_config_last_reload_successful")):
        pass
    return good


@pytest.mark.parametrize("content", [b"", b" \n", b"sk-\xff", b"sk-one\nsk-two\n", b"sk-\x00"])
async def test_a_key_file_without_a_key(live: StartLive, simulator: Simulator, tmp_path: Path, content: bytes) -> None:
    """What is no key is refused, the content is not told, and the mistake has its place in the file."""
    file = tmp_path / "key"
    file.write_bytes(b"sk-first")
    sidecar = await live(keyed(simulator, file))
    file.write_bytes(content)
    told = await sidecar.reload()
    assert (told["ok"], told["generation"], len(told["mistakes"])) == (False, 1, 1)
    assert "upstreams.a.api_key_file" in told["mistakes"][0]
    assert "sk-one" not in str(told)
    assert await sent(sidecar, simulator) == "Bearer sk-first"
    file.write_bytes(b"sk-first")
    assert (await sidecar.reload())["ok"]


async def test_where_a_key_file_is_named(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """A key file that holds no key is told at the place that names it, like every other mistake."""
    file = tmp_path / "key"
    file.write_bytes(b"sk-first")
    sidecar = await live(keyed(simulator, file))
    file.write_bytes(b"")
    (mistake,) = (await sidecar.reload())["mistakes"]
    assert mistake.startswith(f"{sidecar.path}:")


async def test_check_reads_key_files_too(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """What a reload refuses `octet check` refuses."""
    file = tmp_path / "key"
    file.write_bytes(b"sk-first")
    sidecar = await live(keyed(simulator, file))
    file.write_bytes(b"")
    assert not (await sidecar.reload())["ok"]
    assert main(["check", str(sidecar.path)]) == 2


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Serves completions over TLS with a certificate of this authority; notes whose certificates it is shown."""
    runners: list[web.ServerRunner] = []

    async def start(authority: trustme.CA, shown: list[str]) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport is not None
            peer: Any = request.transport.get_extra_info("peercert") or {}
            shown.append(str(peer.get("subjectAltName", ())))
            return web.json_response(COMPLETION)

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return f"https://127.0.0.1:{runner.addresses[0][1]}/v1"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_an_authority_that_is_replaced(
    live: StartLive, simulator: Simulator, served: Served, tmp_path: Path
) -> None:
    """When ca_file holds another authority, upstreams of that one are trusted, and those of the old one no longer."""
    old, new, file = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"
    old.cert_pem.write_to_path(file)
    before, after = await served(old, []), await served(new, [])
    trust = {"tls": {"ca_file": str(file)}}
    tree = one(simulator, settings={"base_url": before, **trust})
    tree["upstreams"]["b"] = {**tree["upstreams"]["a"], "base_url": after}
    tree["routes"].append({"name": "two", "match": {"model": "two"}, "targets": [{"upstream": "b"}]})
    sidecar = await live(tree, watch=True)
    assert [(await sidecar.told(model))[0] for model in ("one", "two")] == [200, 502]
    new.cert_pem.write_to_path(file)
    await until(lambda: sidecar.generation == 2)
    assert [(await sidecar.told(model))[0] for model in ("one", "two")] == [502, 200]


async def test_a_certificate_that_is_renewed(
    live: StartLive, simulator: Simulator, served: Served, tmp_path: Path
) -> None:
    """After a renewal the upstream is shown the new certificate."""
    authority, shown = trustme.CA(), list[str]()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def renew(name: str) -> None:
        ours = authority.issue_cert(name)
        ours.cert_chain_pems[0].write_to_path(tmp_path / "ours.pem")
        ours.private_key_pem.write_to_path(tmp_path / "ours.key")

    renew("first@example.org")
    files = {"ca_file": "ca.pem", "cert_file": "ours.pem", "key_file": "ours.key"}
    tls = {name: str(tmp_path / file) for name, file in files.items()}
    sidecar = await live(one(simulator, settings={"base_url": await served(authority, shown), "tls": tls}))
    assert (await sidecar.told())[0] == 200
    renew("second@example.org")
    assert (await sidecar.reload())["generation"] == 2
    assert (await sidecar.told())[0] == 200
    assert ["first@" in shown[0], "second@" in shown[1]] == [True, True]


async def test_a_certificate_without_its_key(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """A certificate whose key has not been renewed yet is refused, and taken when both fit."""
    authority = trustme.CA()
    first, second = (authority.issue_cert(name) for name in ("a@example.org", "b@example.org"))
    certificate, key = tmp_path / "ours.pem", tmp_path / "ours.key"
    first.cert_chain_pems[0].write_to_path(certificate)
    first.private_key_pem.write_to_path(key)
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    sidecar = await live(one(simulator, settings={"tls": tls}))
    second.cert_chain_pems[0].write_to_path(certificate)
    (mistake,) = (await sidecar.reload())["mistakes"]
    assert "upstreams.a.tls.cert_file: holds no PEM certificate, or key_file is not its key" in mistake
    second.private_key_pem.write_to_path(key)
    assert (await sidecar.reload())["generation"] == 2


async def test_a_callers_key_that_rotates(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """A key that the configuration takes from another file, by `${file:PATH}`, is watched as the file itself is."""
    file = tmp_path / "search"
    file.write_text("key-one\n")
    callers = {"callers": [{"name": "search", "key": f"${{file:{file}}}"}]}
    sidecar = await live(one(simulator, server=callers), watch=True)

    async def status(key: str) -> int:
        body, headers = {"model": "one", "messages": MESSAGES}, {"authorization": f"Bearer {key}"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status

    assert (await status("key-one"), await status("key-two")) == (200, 401)
    file.write_text("key-two\n")
    await until(lambda: sidecar.generation == 2)
    assert (await status("key-one"), await status("key-two")) == (401, 200)
    shown = await sidecar.ask("GET", "/admin/config")
    assert "key-two" not in str(shown)


@pytest.mark.parametrize("key", ["api_key_file", "api_key"])
async def test_a_file_that_comes_later(live: StartLive, simulator: Simulator, tmp_path: Path, key: str) -> None:
    """A configuration refused for a file that is not there is taken over when the file is."""
    file = tmp_path / "later"
    sidecar = await live(one(simulator), watch=True)
    tree = keyed(simulator, file)
    del tree["upstreams"]["a"]["api_key_file"]
    tree["upstreams"]["a"][key] = str(file) if key == "api_key_file" else f"${{file:{file}}}"
    sidecar.write(tree)
    await until(lambda: len(sidecar.app.reloader.describe_reloads()["reloads"]) == 1)
    assert sidecar.generation == 1
    file.write_text("sk-later\n")
    await until(lambda: sidecar.generation == 2)
    assert await sent(sidecar, simulator) == "Bearer sk-later"


@pytest.mark.parametrize("key", ["api_key_file", "api_key"])
@pytest.mark.parametrize("file", ["/dev/zero", "a\0b", "PIPE"])
async def test_what_is_no_file_is_watched_at_no_cost(
    live: StartLive, simulator: Simulator, tmp_path: Path, key: str, file: str
) -> None:
    """A refused file that names a device without end, a pipe or nonsense is looked after like any, and mended."""
    os.mkfifo(tmp_path / "pipe")
    name = str(tmp_path / "pipe") if file == "PIPE" else file
    sidecar = await live(one(simulator), watch=True)
    tree = one(simulator)
    del tree["upstreams"]["a"]["api_key"]
    tree["upstreams"]["a"][key] = name if key == "api_key_file" else f"${{file:{name}}}"
    sidecar.write(tree)
    await until(lambda: len(sidecar.app.reloader.describe_reloads()["reloads"]) == 1)
    sidecar.write(one(simulator, name="other"))
    await until(lambda: sidecar.generation == 2)
