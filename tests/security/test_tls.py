"""An upstream that cannot prove who it is gets nothing of a call: no key, no prompt, no request line."""

import asyncio
import datetime as dt
import logging
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Sidecar, Start
from tests.security.far_side import FarSide, answer, far_side

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Server:
    """A TLS context that notes which names were asked for, and how handshakes ended."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.names: list[str | None] = []
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Its certificate is ca.pem."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@asynccontextmanager
async def served(
    server: Server, start: Start, tmp_path: Path, host: str = "localhost", **tls: Any
) -> AsyncIterator[tuple[Sidecar, FarSide]]:
    """A sidecar that trusts the authority, before such an upstream."""
    async with far_side(ssl=server.context) as side:
        upstream = {
            "base_url": f"https://{host}:{side.port}/v1", "tls": {"ca_file": str(tmp_path / "ca.pem"), **tls}
        }  # fmt: skip
        routes = [{"targets": [{"upstream": "openai"}], "retry": {"attempts": 1}}]
        yield await start(upstreams={"openai": upstream}, routes=routes), side


def expired(authority: trustme.CA) -> Server:
    return Server(authority.issue_cert("localhost", not_after=PAST, not_before=PAST - dt.timedelta(days=1)))


def old(authority: trustme.CA, newest: ssl.TLSVersion) -> Server:
    server = Server(authority.issue_cert("localhost"))
    server.context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.context.minimum_version, server.context.maximum_version = ssl.TLSVersion.TLSv1, newest
    return server


IMPOSTORS: dict[str, Callable[[trustme.CA], Server]] = {
    "expired": expired,
    "not valid yet": lambda ca: Server(
        ca.issue_cert("localhost", not_before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    ),
    "another host": lambda ca: Server(ca.issue_cert("elsewhere.example")),
    "a host that only begins so": lambda ca: Server(ca.issue_cert("localhost.example")),
    "a wildcard of everything": lambda ca: Server(ca.issue_cert("*.example")),
    "an address where a name was asked for": lambda ca: Server(ca.issue_cert("127.0.0.1")),
    "a common name alone": lambda ca: Server(ca.issue_cert("elsewhere.example", common_name="localhost")),
    "another authority of the same name": lambda _: Server(trustme.CA().issue_cert("localhost")),
    "TLS 1.0": lambda ca: old(ca, ssl.TLSVersion.TLSv1),
    "TLS 1.1": lambda ca: old(ca, ssl.TLSVersion.TLSv1_1),
}


@pytest.mark.parametrize("case", IMPOSTORS)
async def test_an_impostor(
    start: Start, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """It is a 502 that says so and quotes nothing; not a byte of a request is sent."""
    caplog.set_level(logging.INFO)
    async with served(IMPOSTORS[case](authority), start, tmp_path) as (sidecar, side):
        for stream in (False, True):
            response = await sidecar.chat(stream=stream)
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (502, "upstream_unreachable")
            assert ("TLS" in error["message"]) is ("TLS" not in case)  # those hang up without a word
            assert "localhost" not in error["message"]
        assert side.seen == []
    assert "elsewhere" not in caplog.text


async def test_a_good_one(start: Start, authority: trustme.CA, tmp_path: Path) -> None:
    """The same with a good certificate is served, and was told the name that it was asked for (SNI)."""
    server = Server(authority.issue_cert("localhost"))
    async with served(server, start, tmp_path) as (sidecar, side):
        assert (await sidecar.chat()).status == 200
        assert len(side.seen) == 1
    assert server.names == ["localhost"]


BLURTED = {
    "an alert that no version is shared": b"\x15\x03\x01\x00\x02\x02\x46",
    "plain HTTP": answer(),
    "nothing at all": b"",
}


@pytest.mark.parametrize("case", BLURTED)
async def test_who_speaks_no_tls(start: Start, case: str) -> None:
    """Who answers a handshake with anything else is a 502, and has got nothing but the handshake."""
    got = bytearray()

    async def blurt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.read(65536))
        writer.write(BLURTED[case])
        writer.close()

    server = await asyncio.start_server(blurt, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sidecar = await start(upstreams={"openai": {"base_url": f"https://127.0.0.1:{port}/v1"}})
    response = await sidecar.chat()
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (502, "upstream_unreachable")
    assert ("TLS" in error["message"]) is (case != "nothing at all")
    assert got.startswith(b"\x16\x03")
    assert not [word for word in (b"POST", b"sk-ours", b"Hello") if word in got]
    server.close()
