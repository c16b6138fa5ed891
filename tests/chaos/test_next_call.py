"""A stream that breaks takes no other call with it."""

import asyncio

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar


async def _answer(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n0\r\n\r\n")


async def test_the_connection_serves_on_or_says_that_it_does_not(sidecar: Sidecar, simulator: Simulator) -> None:
    """The body of a broken stream ends as it should: who has been told nothing else may send the next call."""
    simulator.script("openai", Behaviour(error_after=1))
    body = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": true}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    host, port = sidecar.app.addresses[0].host, sidecar.app.addresses[0].port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head % len(body) + body)
        broken = await _answer(reader)
        assert b'"error"' in broken
        if b"connection: close" not in broken:
            writer.write(head % len(body) + body)
            assert b"[DONE]" in await _answer(reader)
    finally:
        writer.close()
        await writer.wait_closed()
