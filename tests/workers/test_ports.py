"""Ports that several processes share: ours alone, and kept."""

import json
import os
import socket
from pathlib import Path

import pytest

from proxy.config import Address
from proxy.edge.listening import ListenError, NoSuchAddress, Reserved
from proxy.simulator import Simulator
from tests.workers.conftest import Begin, Fleet, Octet, group, one, wait_until


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listener(port: int = 0, *, shared: bool = False, host: str = "127.0.0.1") -> socket.socket:
    """Somebody who listens."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    made.listen()
    return made


def test_a_reserved_port_takes_no_connections() -> None:
    """It is bound, not listened at: connections go to those who listen, and to nobody else."""
    reserved = Reserved([Address("127.0.0.1", 0)])
    port = reserved.addresses[0].port
    assert port > 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with listener(port, shared=True), socket.create_connection(("127.0.0.1", port)):
        pass
    reserved.close()
    listener(port).close()


def test_a_reserved_port_is_kept_from_others() -> None:
    """While nobody listens at it, a program that does not share ports cannot take it."""
    reserved = Reserved([Address("127.0.0.1", 0)])
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", reserved.addresses[0].port))
    reserved.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_taken_port_is_not_reserved(shared: bool) -> None:
    """Somebody who listens is noticed, also one who would share; and what was reserved before it is given back."""
    first = free_port()
    with listener(shared=shared) as taken:
        where = [Address("127.0.0.1", first), Address(*taken.getsockname())]
        with pytest.raises(ListenError, match="it is taken; choose another"):
            Reserved(where)
    listener(first).close()


def test_an_address_that_this_machine_has_not() -> None:
    """An address of another machine is an error; one that is not there by default is not."""
    with pytest.raises(NoSuchAddress, match="no such address"):
        Reserved([Address("192.0.2.1", 0)])


def test_ipv6_alone() -> None:
    """An IPv6 wildcard leaves IPv4's port to others."""
    reserved = Reserved([Address("::", 0)])
    listener(reserved.addresses[0].port).close()
    reserved.close()


async def ended(fleet: Fleet) -> int:
    """Its exit code; nothing is left of it."""
    await fleet.process.wait()
    await wait_until(lambda: not group(fleet.process.pid))
    return await fleet.ended()


@pytest.mark.parametrize("which", ["listen", "admin"])
@pytest.mark.parametrize("workers", [2, 3])
async def test_a_taken_port(octet: Octet, simulator: Simulator, which: str, workers: int) -> None:
    """A taken port is one clear line and exit code 1; no worker is left."""
    with listener() as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fleet = await octet(one(simulator, server={which: address, "workers": workers}))
        assert await ended(fleet) == 1
    assert fleet.told[-1] == f"octet: cannot listen at {address}: it is taken; choose another with --listen or --admin"
    assert not fleet.heard("Traceback")


@pytest.mark.parametrize("workers", [1, 3])
async def test_another_octet_is_there_already(begin: Begin, octet: Octet, simulator: Simulator, workers: int) -> None:
    """A second sidecar at the port of one with workers notices, whether it has one process or several."""
    first = await begin()
    second = await octet(one(simulator, server={"listen": f"127.0.0.1:{first.port}", "workers": workers}))
    assert await ended(second) == 1
    assert second.heard("it is taken") == 1
    assert [await first.call() for _ in range(5)] == [200] * 5


async def test_another_octet_with_one_process_is_there_already(
    begin: Begin, octet: Octet, simulator: Simulator
) -> None:
    """A second sidecar with workers notices one that has a single process."""
    first = await begin(server={"workers": 1})
    second = await octet(one(simulator, server={"listen": f"127.0.0.1:{first.port}"}))
    assert await ended(second) == 1
    assert second.heard("it is taken") == 1
    assert await first.call() == 200


async def test_several_addresses_and_port_0(begin: Begin) -> None:
    """All workers listen at all addresses, IPv6 too; ports that were left open are told as they are bound."""
    fleet = await begin(server={"listen": ["127.0.0.1:0", "[::1]:0", f"127.0.0.1:{free_port()}"]})
    told = next(line for line in fleet.told if "base URL" in line).split(None, 2)[2].split(", ")
    assert len(set(told)) == 3
    assert all(":0/" not in url for url in told)
    assert told[1].startswith("http://[::1]:")
    for url in told:
        for _ in range(6):
            async with fleet.session().get(f"{url}/models") as response:
                assert response.status == 200


async def test_operators_and_callers_at_one_port(octet: Octet, simulator: Simulator) -> None:
    """The admin side is never at the callers' port, though that is shared."""
    address = f"127.0.0.1:{free_port()}"
    fleet = await octet(one(simulator, server={"listen": address, "admin": address}))
    assert await ended(fleet) == 1
    assert fleet.heard(f"cannot listen at {address}: it is taken") == 1


def test_an_address_that_stands_twice() -> None:
    """The same address twice is a mistake, as it is for one process."""
    address = Address("127.0.0.1", free_port())
    with pytest.raises(ListenError):
        Reserved([address, address]).close()


def test_a_port_that_another_parent_has_just_reserved() -> None:
    """Two sidecars that are started at the same moment do not share their calls: one of them notices."""
    first = Reserved([Address("127.0.0.1", 0)])
    try:
        with pytest.raises(ListenError, match="it is taken"):
            Reserved(first.addresses).close()
    finally:
        first.close()


async def test_a_port_that_stays_after_a_replacement(begin: Begin) -> None:
    """A worker's successor listens at the port that was told, though the file says 0."""
    fleet = await begin()
    pids = set((await fleet.pids()).values())
    for pid in pids:
        fleet.kill(pid)
    await wait_until(lambda: fleet.replaced(*pids))
    assert await fleet.call() == 200


async def test_a_unix_socket_cannot_be_shared(octet: Octet, simulator: Simulator, tmp_path: Path) -> None:
    """A unix socket in the file is a mistake with its place; the admin side may have one."""
    fleet = await octet(one(simulator, server={"listen": f"unix:{tmp_path}/octet.sock"}))
    assert await ended(fleet) == 2
    assert "server.workers: several processes cannot share a unix socket; listen at HOST:PORT" in fleet.told[0]


async def test_a_unix_socket_and_workers_from_the_environment(octet: Octet, simulator: Simulator) -> None:
    """It is a mistake too where the number of workers comes from a variable."""
    fleet = await octet(one(simulator, server={"listen": "unix:octet.sock", "workers": "${WORKERS:-3}"}))
    assert await ended(fleet) == 2
    assert fleet.heard("server.workers: ") == 1


async def test_a_unix_socket_by_a_flag(octet: Octet, simulator: Simulator, tmp_path: Path) -> None:
    """A unix socket that a flag names is refused as well; never does it become a port that is open to everybody."""
    fleet = await octet(one(simulator), "--listen", f"unix:{tmp_path}/octet.sock")
    await wait_until(lambda: fleet.heard("  routes ") or fleet.process.returncode is not None)
    assert not fleet.heard("base URL")
    assert await ended(fleet) in (1, 2)


async def test_a_unix_socket_for_operators(begin: Begin, tmp_path: Path) -> None:
    """The admin side is the parent's alone, and may be a unix socket; it is removed at the end."""
    path = tmp_path / "admin.sock"
    fleet = await begin(server={"admin": f"unix:{path}"})
    assert path.is_socket()
    assert await fleet.call() == 200
    os.kill(fleet.process.pid, 15)
    assert await ended(fleet) == 0
    assert not path.exists()


def test_another_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the system does not deal out connections, several workers are a mistake in the file; one is not."""
    from proxy.__main__ import main

    monkeypatch.setattr("proxy.config.checks.sys.platform", "darwin")
    path = tmp_path / "octet.yaml"
    for workers, code in ((1, 0), (2, 2)):
        upstreams = {"a": {"provider": "openai", "api_key": "x"}}
        path.write_text(json.dumps({"server": {"workers": workers}, "upstreams": upstreams}))
        assert main(["check", str(path)]) == code
    assert "server.workers: more than one works on Linux only" in capsys.readouterr().out
