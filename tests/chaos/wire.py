"""A TCP proxy before an upstream: the network, and what can go wrong with it."""

import asyncio
import contextlib
import socket
import struct
from typing import Literal

Trouble = Literal["", "reset", "hole", "drip"]
"""`reset`: a connection is reset after some bytes of the answer; `hole`: nothing passes, and nobody is told;
`drip`: the answer comes in pieces of a few bytes."""

DRIP_BYTES, DRIP_SECONDS = 7, 0.0005


class Wire:
    """Forwards connections to a port of 127.0.0.1; `open` are those that there are."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.open = 0
        self.trouble: Trouble = ""
        self.reset_after = 0  # bytes
        self._far = port
        self._server: asyncio.Server | None = None
        self._clear = asyncio.Event()  # there is no hole
        self._clear.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def break_with(self, trouble: Trouble, reset_after: int = 0) -> None:
        """From now on, for the connections that there are and those to come; "" mends it."""
        self.trouble, self.reset_after = trouble, reset_after
        (self._clear.clear if trouble == "hole" else self._clear.set)()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.open += 1
        far: asyncio.StreamWriter | None = None
        try:
            back, far = await asyncio.open_connection("127.0.0.1", self._far)
            ways = {asyncio.ensure_future(self._there(reader, far)), asyncio.ensure_future(self._back(back, writer))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody listens there
        finally:
            self.open -= 1
            for each in (writer, far):
                if each is not None:
                    each.close()

    async def _there(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._clear.wait()
                far.write(data)
                await far.drain()

    async def _back(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await back.read(65536):
                await self._clear.wait()
                if self.trouble == "reset" and passed + len(data) > self.reset_after:
                    writer.write(data[: max(0, self.reset_after - passed)])
                    _reset(writer)
                    return
                passed += len(data)
                if self.trouble != "drip":
                    writer.write(data)
                    await writer.drain()
                    continue
                for at in range(0, len(data), DRIP_BYTES):
                    writer.write(data[at : at + DRIP_BYTES])
                    await asyncio.sleep(DRIP_SECONDS)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST: what was sent and not read is lost, as a network loses it."""
    place = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
