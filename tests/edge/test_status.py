"""The status page's server side: who gets it, what it is told, and how many may look at once."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from proxy.edge import status
from proxy.edge.status import Board, Numbers
from proxy.errors import ProxyFault
from proxy.telemetry import Telemetry
from tests.conftest import Sidecar, Start

TOKEN = {"authorization": "Bearer operators"}
ELSEWHERE = {"host": "octet.example"}  # a page of somebody else may have a name of its own point here


async def event(response: aiohttp.ClientResponse) -> Any:
    """The next one."""
    async with asyncio.timeout(10):
        line = await response.content.readline()
        assert await response.content.readline() == b"\n"
    assert line.startswith(b"data: ")
    return json.loads(line[6:])


async def live(sidecar: Sidecar, **headers: str) -> aiohttp.ClientResponse:
    """An open page's events."""
    return await sidecar.http.get(f"{sidecar.admin_url}/admin/live", headers=headers)


async def answers(sidecar: Sidecar) -> int:
    """How one more page fares; it goes at once."""
    async with await live(sidecar) as response:
        return response.status


async def test_the_page_may_do_nothing_but_ask_us(sidecar: Sidecar) -> None:
    """It brings all it needs, may load nothing, and is kept by nobody; each has a nonce of its own."""
    nonces = set()
    for _ in range(2):
        async with sidecar.http.get(f"{sidecar.admin_url}/") as response:
            text = await response.text()
            policy = response.headers["content-security-policy"]
            assert response.content_type == "text/html"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["server"] == "octet"
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
        assert text.count(f'nonce="{nonce}"') == 2
        assert "__NONCE__" not in text
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").partition("<script")[0]
        nonces.add(nonce)
    assert len(nonces) == 2


async def test_without_a_token_only_this_machine_sees_it(sidecar: Sidecar) -> None:
    """Neither the page nor its events."""
    for path in ("/", "/admin/live"):
        async with sidecar.http.get(f"{sidecar.admin_url}{path}", headers=ELSEWHERE) as response:
            assert response.status == 403
        async with sidecar.http.post(f"{sidecar.admin_url}{path}") as response:
            assert response.status == 405


async def test_with_a_token_the_page_asks_for_it(start: Start) -> None:
    """The page, which holds no data, is given to all; its events to who shows the token."""
    sidecar = await start(server={"admin_token": "operators"})
    async with sidecar.http.get(f"{sidecar.admin_url}/", headers=ELSEWHERE) as response:
        assert response.status == 200
    async with await live(sidecar, **ELSEWHERE) as response:
        assert response.status == 403
    async with await live(sidecar, **ELSEWHERE, **TOKEN) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert (await event(response))["ready"] is True


async def test_the_numbers_are_those_of_the_metrics(sidecar: Sidecar) -> None:
    """After a good call, a bad one and a stream."""
    await (await sidecar.chat()).read()
    await (await sidecar.chat("claude-haiku-4-5", stream=True)).read()
    await (await sidecar.chat("nowhere")).read()
    await sidecar.lines.wait_for(3)
    async with await live(sidecar) as response:
        told = await event(response)
    assert told["calls"] == {"caller_error": 1, "ok": 2}
    assert (sum(told["latency"]["json"]), sum(told["latency"]["stream"])) == (2, 1)
    assert sum(told["latency"]["first_token"]) == 1
    for counts, bounds in (("json", "bounds"), ("stream", "bounds"), ("first_token", "first_token_bounds")):
        assert len(told["latency"][counts]) == len(told["latency"][bounds]) + 1
    for direction in ("prompt", "completion"):
        counted = 0.0
        for name, model in (("openai", "gpt-4o-mini"), ("anthropic", "claude-haiku-4-5")):
            labels = {"upstream": name, "model": model, "direction": direction, "source": "provider"}
            counted += await sidecar.metric("octet_tokens_total", **labels)
        assert told["tokens"][direction] == counted
    assert told["unpriced"] == 2
    assert {route["name"]: route["calls"] for route in told["routes"] if route["calls"]} == {
        "openai": 1,
        "anthropic": 1,
    }
    upstreams = {each["name"]: each for each in told["upstreams"]}
    assert upstreams["openai"]["attempts"] == {"ok": 1}
    assert (upstreams["openai"]["circuit"], upstreams["openai"]["last_failure"]) == ("closed", None)
    assert [call["outcome"] for call in told["recent"]] == ["caller_error", "ok", "ok"]
    assert told["recent"][1]["decision"]["targets"][0]["upstream"] == "anthropic"
    assert (told["generation"], told["reload"]["ok"], told["workers"]) == (1, True, 1)


async def test_events_go_on(sidecar: Sidecar) -> None:
    """One after the other, each anew, and read once for all who look."""
    async with await live(sidecar) as one, await live(sidecar) as other:
        first, same = await event(one), await event(other)
        assert first["time"] == same["time"]
        await (await sidecar.chat()).read()
        second = await event(one)
        assert second["time"] > first["time"]
        assert second["calls"] == {"ok": 1}


async def test_so_many_may_look(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, until one has gone."""
    monkeypatch.setattr(status, "MOST_VIEWERS", 2)
    monkeypatch.setattr(status, "EVERY_SECONDS", 0.01)
    first, second = await live(sidecar), await live(sidecar)
    async with await live(sidecar) as third:
        assert third.status == 503
        assert (await third.json())["error"]["code"] == "too_many"
    first.close()
    async with asyncio.timeout(10):
        while await answers(sidecar) != 200:
            pass
    second.close()


async def test_a_viewer_who_reads_nothing_is_let_go(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free again; nothing waits for it."""
    monkeypatch.setattr(status, "MOST_VIEWERS", 1)
    monkeypatch.setattr(status, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(status, "SEND_SECONDS", 0.05)

    async def much(_: Board) -> Any:
        return {"recent": "x" * 1_000_000}

    monkeypatch.setattr(Board, "_read", much)
    host, _, port = str(sidecar.app.admin).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(b"GET /admin/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b"data: ")
        assert await answers(sidecar) == 503
        while await answers(sidecar) != 200:
            pass
        assert not (await reader.read()).endswith(b"0\r\n\r\n")  # what was on its way, and no good end
    writer.transport.abort()


async def test_stopping_does_not_wait_for_viewers(start: Start) -> None:
    """The events end with the sidecar."""
    sidecar = await start()
    async with await live(sidecar) as response:
        await event(response)
        async with asyncio.timeout(5):
            await sidecar.app.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            while await response.content.readline():
                pass


def test_a_histogram_is_taken_apart() -> None:
    """Counts of each bucket, of all series with the labels together."""
    telemetry = Telemetry(lambda _: None)
    for upstream, seconds in (("a", 0.003), ("a", 0.02), ("b", 0.02), ("b", 10_000.0)):
        telemetry._duration.bind((upstream, "json")).observe(seconds)
    numbers = Numbers(telemetry.registry.collect())
    counts = numbers.buckets("octet_call_duration_seconds", mode="json")
    assert (counts[0], counts[2], counts[-1], sum(counts)) == (1, 2, 1, 4)
    assert numbers.buckets("octet_call_duration_seconds", mode="none") == []
    assert numbers.bounds("octet_call_duration_seconds")[:2] == [0.005, 0.01]
    assert numbers.value("octet_nothing") == 0


async def test_what_cannot_be_told_any_more_ends_the_events(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of events there is no room for an error: they end, and the page asks again and is told."""
    monkeypatch.setattr(status, "EVERY_SECONDS", 0.01)
    async with await live(sidecar) as response:
        await event(response)

        async def nothing(_: Board) -> Any:
            raise ProxyFault("no worker is there", status=503, code="no_worker")

        monkeypatch.setattr(Board, "_read", nothing)
        async with asyncio.timeout(10):
            rest = await response.content.read()
    assert b"HTTP/1.1" not in rest
    async with await live(sidecar) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "no_worker"


async def test_what_cannot_be_told_is_an_error_once() -> None:
    """A process that does not answer breaks one look, and not the next."""

    class Source:
        ready = True
        asked = 0

        async def metrics(self) -> Any:
            self.asked += 1
            raise ConnectionResetError

        async def ask(self, what: str, **arguments: Any) -> Any:
            raise AssertionError(what)

    source = Source()
    board = Board(source)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await board.read()
    assert source.asked == 2
