"""The admin side as another machine sees it: by an address of this machine that is not loopback."""

import socket

import pytest

from tests.conftest import Sidecar, Start
from tests.security.wire import Answer, head, read_answers, talk

OPEN = ("/metrics", "/healthz", "/readyz")
SHUT = [
    ("GET", "/admin"),
    ("GET", "/admin/"),
    ("GET", "/admin/config"),
    ("GET", "/admin/calls"),
    ("GET", "/admin/calls/x"),
    ("GET", "/admin/upstreams"),
    ("GET", "/admin/cache"),
    ("GET", "/admin/live"),
    ("POST", "/admin/reload"),
    ("POST", "/admin/explain"),
    ("POST", "/admin/cache/purge?all"),
    ("POST", "/admin/upstreams/openai/open"),
    ("POST", "/admin/upstreams/openai/reset"),
    ("GET", "/%61dmin/config"),
    ("GET", "/admin%2fconfig"),
    ("GET", "/admin/%2e%2e/admin/config"),
    ("GET", "/admin/../metrics"),
    ("GET", "/admin/config?x=/metrics"),
    ("GET", "/admin/config#/metrics"),
    ("GET", "http://127.0.0.1/admin/config"),
    ("GET", "http://localhost/admin/config"),
    ("OPTIONS", "/admin/config"),
    ("PUT", "/admin/config"),
    ("TRACE", "/admin/config"),
]
NOWHERE = [
    "//admin/config",
    "/metrics/../admin/config",
    "/./admin/config",
    "/ADMIN/config",
    "/x/admin/config",
    "/status",
]
CLAIMS = [
    b"X-Forwarded-For: 127.0.0.1",
    b"Forwarded: for=127.0.0.1",
    b"X-Real-IP: 127.0.0.1",
    b"Authorization: Bearer",
    b"Authorization: Bearer wrong",
    b"Authorization: Basic czNjcmV0",
    b"Authorization: s3cret",
    b"Authorization: Bearer s3cret2",
    b"Authorization: Bearer S3CRET",
    b"Authorization: Bearer wrong\r\nAuthorization: Bearer s3cret",
    b"X-Octet-Key: s3cret",
    b"Proxy-Authorization: Bearer s3cret",
    b"Cookie: authorization=Bearer%20s3cret",
]


def own_address(family: socket.AddressFamily) -> str:
    """An address of this machine that other machines use; nothing is sent to find it."""
    far = ("192.0.2.1", 9) if family == socket.AF_INET else ("2001:db8::1", 9)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(far)
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def outside(request: pytest.FixtureRequest) -> str:
    """Such an address."""
    return own_address(request.param)


def listening(address: str) -> str:
    return f"[{address}]:0" if ":" in address else f"{address}:0"


async def ask(sidecar: Sidecar, *lines: bytes, method: str = "GET", path: str = "/", host: bytes = b"") -> Answer:
    """One request to the admin side, by its address."""
    assert sidecar.app.admin is not None
    address = sidecar.app.admin
    whole = head(*lines, b"Content-Length: 0", b"Connection: close", method=method, target=path)
    named = host or str(address).encode()
    told = await talk((address.host, address.port), whole.replace(b"Host: a", b"Host: " + named))
    return read_answers(told)[0]


async def test_metrics_and_probes_alone(start: Start, outside: str) -> None:
    """Whoever it is, and however the path is written; the answer says what would be needed, and no more."""
    sidecar = await start(server={"admin": listening(outside)})
    for path in OPEN:
        assert (await ask(sidecar, path=path)).status == 200
    for host in (b"", b"127.0.0.1", b"localhost:8081", b"[::1]"):
        for method, path in [("GET", "/"), *SHUT]:
            answer = await ask(sidecar, method=method, path=path, host=host)
            assert (answer.status, b"admin_token_needed" in answer.body) == (403, True), (method, path, host)
        for path in NOWHERE:
            assert (await ask(sidecar, path=path, host=host)).status == 404, path


async def test_only_the_token_opens(start: Start, outside: str) -> None:
    """No header that claims to be local, and nothing that is almost the token; then the token does."""
    sidecar = await start(server={"admin": listening(outside), "admin_token": "s3cret"})
    for claim in CLAIMS:
        for method, path in (("GET", "/admin/config"), ("POST", "/admin/upstreams/openai/open")):
            answer = await ask(sidecar, claim, method=method, path=path)
            assert answer.status == 403, claim
            assert b"s3cret" not in answer.body
    answer = await ask(sidecar, b"Authorization: Bearer s3cret", path="/admin/upstreams")
    assert answer.status == 200
    assert b'"state":"open"' not in answer.body
    answer = await ask(sidecar, b"Authorization: Bearer s3cret", method="POST", path="/admin/upstreams/openai/open")
    assert (answer.status, b'"state":"open"' in answer.body) == (200, True)


async def test_the_page_holds_nothing(start: Start, outside: str) -> None:
    """With a token the page itself is shown, to be asked for it; no name or number of ours is in it."""
    sidecar = await start(server={"admin": listening(outside), "admin_token": "s3cret", "region": "canary-region"})
    answer = await ask(sidecar)
    assert answer.status == 200
    for word in (b"canary-region", b"gpt-4o-mini", b"s3cret", b"sk-ours"):
        assert word not in answer.body


async def test_from_loopback_by_another_name(start: Start) -> None:
    """Listening everywhere changes nothing for this machine, which is let in by its loopback address alone."""
    address = own_address(socket.AF_INET)
    sidecar = await start(server={"admin": "0.0.0.0:0"})
    assert sidecar.app.admin is not None
    request = head(b"Connection: close", method="GET", target="/admin/config").replace(b"Host: a", b"Host: localhost")
    for host, status in (("127.0.0.1", 200), (address, 403)):
        (answer,) = read_answers(await talk((host, sidecar.app.admin.port), request))
        assert answer.status == status


async def test_nothing_of_it_on_the_data_port(start: Start, outside: str) -> None:
    """On no path, with no method, with the token too: applications cannot steer."""
    sidecar = await start(server={"listen": listening(outside), "admin_token": "s3cret"})
    data = sidecar.app.addresses[0]
    for method, path in [("GET", "/metrics"), *SHUT]:
        whole = head(
            b"Authorization: Bearer s3cret", b"Content-Length: 0", b"Connection: close", method=method, target=path
        )
        (answer,) = read_answers(await talk((data.host, data.port), whole))
        assert answer.status == 404, path


async def test_the_token_is_told_apart_whole(start: Start) -> None:
    """A token of any length is compared as a digest: neither a prefix, nor more of it, nor none opens."""
    token = "t" * 300
    sidecar = await start(server={"admin_token": token})
    for shown, status in ((token, 200), (token[:-1], 403), (token + "t", 403), (token[:64], 403), ("", 403)):
        lines = [b"Authorization: Bearer " + shown.encode()]
        answer = await ask(sidecar, *lines, path="/admin/config", host=b"sidecar.example")
        assert answer.status == status
