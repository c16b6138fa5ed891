"""The bench judges: a budget that can be broken, and a load that takes no bad answer for a good one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.bench import load
from tests.bench.__main__ import CASES, PATH, Case, check
from tests.bench.upstream import Upstream, openai

RATIOS = {
    "json / session": 0.5,
    "json, kept / alone": 1,
    "stream / session": 0.5,
    "stream, anthropic / stream": 1,
    "stream, ollama / stream": 1,
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The mock upstream's port."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def test_a_budget_that_is_kept() -> None:
    """Ratios below the budget are fine."""
    assert check(RATIOS) == 0


@pytest.mark.parametrize("name", RATIOS)
def test_a_budget_that_is_broken(name: str) -> None:
    """Each ratio beyond its budget counts, and so does one that was not measured."""
    assert check({**RATIOS, name: 9.0}) == 1
    assert check({key: value for key, value in RATIOS.items() if key != name}) == 1


@pytest.mark.parametrize("path", [PATH, "/v1/messages", "/api/chat"])
async def test_streams_are_counted(port: int, path: str) -> None:
    """Every dialect's stream comes whole, in order, and is timed."""
    sent = load.request(path, b'{"model":"bench-5x1","stream":true}')
    seen = await load.run(port, sent, connections=3, rounds=2, chunks=5)
    assert (len(seen.waits), len(seen.first)) == (6, 6)
    assert len(seen.gaps) >= 6


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.model.startswith("bench-") and not case.chunks], ids=lambda case: case.name
)
async def test_json_calls_are_counted(port: int, case: Case) -> None:
    """Answers of every size come whole."""
    seen = await load.run(port, case.request, connections=2, rounds=3)
    assert len(seen.waits) == 6


@pytest.mark.parametrize("model", ["bench-4x1", "bench-6x1", "nothing"])
async def test_what_is_not_what_was_asked_for(port: int, model: str) -> None:
    """A stream that is too short or too long, or an error, ends the measurement."""
    sent = load.request(PATH, b'{"model":"%b","stream":true}' % model.encode())
    with pytest.raises(load.BadAnswer):
        await load.run(port, sent, connections=1, rounds=1, chunks=5)


async def test_a_stream_out_of_order(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that change places are noticed."""
    writes = openai(5)
    writes[2], writes[3] = writes[3], writes[2]
    monkeypatch.setitem(Upstream.streams, (b"", 5), writes)
    sent = load.request(PATH, b'{"model":"bench-5x1","stream":true}')
    with pytest.raises(load.BadAnswer):
        await load.run(port, sent, connections=1, rounds=1, chunks=5)
