"""Where it listens: IPv4, IPv6, unix sockets, and the admin side apart."""

from pathlib import Path

import aiohttp
import pytest

from proxy.edge.listening import ListenError
from tests.conftest import Sidecar, Start


async def test_ipv6(start: Start) -> None:
    """Both families serve."""
    sidecar = await start(server={"listen": ["127.0.0.1:0", "[::1]:0"]})
    for address in sidecar.app.addresses:
        async with sidecar.http.get(f"http://{address}/v1/models") as response:
            assert response.status == 200
    assert [address.host for address in sidecar.app.addresses] == ["127.0.0.1", "::1"]


async def test_unix_socket(start: Start, tmp_path: Path) -> None:
    """A unix socket serves, a stale one is replaced, and none is left behind."""
    path = tmp_path / "octet.sock"
    for _ in range(2):
        sidecar = await start(server={"listen": f"unix:{path}"})
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get("http://octet/v1/models") as response,
        ):
            assert response.status == 200
        with pytest.raises(ListenError, match="it is taken"):
            await start(server={"listen": f"unix:{path}"})
        sidecar.app._listeners.close()  # as after a crash: the file stays
    await sidecar.close()
    assert not path.exists()


async def test_a_taken_port_is_named(sidecar: Sidecar, start: Start) -> None:
    """A port in use is an error that says which, and what to do."""
    address = sidecar.app.addresses[0]
    with pytest.raises(ListenError, match=f"cannot listen at {address}: it is taken; choose another with --listen"):
        await start(server={"listen": str(address)})


async def test_the_admin_side(sidecar: Sidecar) -> None:
    """Metrics and probes are on the admin port; nothing else is, and metrics are nowhere else."""
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/plain")
        assert "octet_calls_total" in await response.text()
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics", headers=accept) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")
    for method, path, status in (("GET", "/v1/models", 404), ("POST", "/metrics", 405)):
        async with sidecar.http.request(method, sidecar.admin_url + path) as response:
            assert response.status == status
            assert (await response.json())["error"]["message"]
    async with sidecar.http.get(f"{sidecar.url}/metrics") as response:
        assert response.status == 404
