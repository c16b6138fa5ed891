"""Bring an answer to the client: at its pace, in its pieces, and only as far as the behaviour allows."""

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from aiohttp import web

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing, Page, spell
from proxy.simulator.report import Call, Outcome, Report

_CONTENT_TYPES = {
    "sse": "text/event-stream; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "text": "text/plain; charset=utf-8",
    "unframed": "text/event-stream; charset=utf-8",  # BentoML names every generator so
}


class Delivery:
    """The writing of one answer; afterwards `response` is what the server has to be given back."""

    def __init__(self, request: web.BaseRequest, call: Call, report: Report, behaviour: Behaviour, pace: float) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._call = call
        self._report = report
        self._behaviour = behaviour
        self._pace = pace if behaviour.token_seconds is None else behaviour.token_seconds
        self._held = bytearray()

    async def page(self, page: Page, outcome: Outcome) -> Outcome:
        """Send a whole answer; `outcome` is what it counts as when it was fully written."""
        behaviour, body = self._behaviour, page.body
        sized = {} if behaviour.clean_cut else {"content-length": str(len(body))}
        response = await self._open(page.status, {"content-type": page.content_type, **page.headers, **sized})
        if behaviour.stall is None and behaviour.cut is None:
            await self._write(body)
            await self._end(response)
            return outcome
        half = b"" if _breaks_at_once(behaviour) else body[: len(body) // 2]
        await self._write(half)
        await self._flush()
        self._call.phase = "mid_stream" if half else self._call.phase
        if behaviour.stall is not None:
            await hang()
        if behaviour.clean_cut:
            await self._end(response)
        else:
            self.hang_up()
        return "failed"

    async def stream(
        self, status: int, headers: dict[str, str], frames: Iterable[Frame], framing: Framing, error: Frame
    ) -> Outcome:
        """Send a stream.

        Args:
            status: of the answer, a success.
            headers: the dialect's own.
            frames: everything up to and including the terminal event.
            framing: how to spell them.
            error: what is sent instead of the rest, if the behaviour wants one.
        """
        breaks_after = _frames_before_break(self._behaviour)
        response = await self._open(status, {"content-type": _CONTENT_TYPES[framing], **headers})
        sent, first = 0, True
        due: float | None = None
        for frame in frames:
            data = spell(frame, framing, self._behaviour, first=first)
            if breaks_after is not None and _is_break(frame, sent, breaks_after):
                return await self._break_off(response, data, spell(error, framing, self._behaviour))
            if frame.stage == "content" or (frame.stage == "closing" and due is None):
                due = await self._wait(due)
            await self._write(data)
            self._report.frame_sent(self._call)
            if frame.stage == "content":
                sent += 1
                self._call.sent = sent
                self._call.phase = "mid_stream"
            first = False
        await self._end(response)
        return "completed"

    def hang_up(self) -> None:
        """Close the connection without ending the answer; what was written still arrives."""
        if self._request.transport is not None:
            self._request.transport.close()

    async def _open(self, status: int, headers: dict[str, str]) -> web.StreamResponse:
        """Send the head of the answer, with what the behaviour changes in it."""
        behaviour = self._behaviour
        head = {"cache-control": "no-cache", **headers}
        if behaviour.content_type is not None:
            head["content-type"] = behaviour.content_type
        head |= {name.lower(): value for name, value in behaviour.headers.items()}
        self.response = web.StreamResponse(status=status, headers=head)
        if head.get("connection", "").lower() == "close":
            self.response.force_close()
        await self.response.prepare(self._request)
        self._call.phase = "before_first_token"
        return self.response

    async def _break_off(self, response: web.StreamResponse, following: bytes, error: bytes) -> Outcome:
        """Stop before a frame, in the way the behaviour wants."""
        behaviour = self._behaviour
        await self._flush()
        if behaviour.stall is not None:
            await hang()
        if behaviour.error_after is not None:
            await self._write(error)
            self._report.frame_sent(self._call)
        if behaviour.error_after is not None or behaviour.clean_cut:
            await self._end(response)
            return "failed"
        if not _breaks_at_once(behaviour):
            await self._write(following[: len(following) // 2])
            await self._flush()
        self.hang_up()
        return "failed"

    async def _wait(self, due: float | None) -> float:
        """Keep the pace: each frame is due so long after the one before was, whatever writing took."""
        now = asyncio.get_running_loop().time()
        due = now + self._behaviour.first_token_seconds if due is None else due + self._pace
        await asyncio.sleep(max(0.0, due - now))
        return due

    async def _write(self, data: bytes) -> None:
        """Write at once, or in pieces of the wanted size, each its own turn of the loop."""
        assert self.response is not None  # noqa: S101 - opened by every caller
        size = self._behaviour.chunk_bytes
        if size is None:
            await self.response.write(data)
            return
        self._held += data
        while len(self._held) >= size:
            await self.response.write(bytes(self._held[:size]))
            del self._held[:size]
            await asyncio.sleep(0)

    async def _flush(self) -> None:
        """Write what is left of the last piece."""
        if self._held and self.response is not None:
            await self.response.write(bytes(self._held))
            self._held.clear()

    async def _end(self, response: web.StreamResponse) -> None:
        await self._flush()
        await response.write_eof()


async def hang() -> NoReturn:
    """Wait for ever; ended only by cancellation, when the client goes or the server stops."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future")


def _frames_before_break(behaviour: Behaviour) -> int | None:
    """Return how many content frames are sent before the answer breaks, once its headers are out."""
    if _breaks_at_once(behaviour):
        return 0
    for count in (behaviour.stall, behaviour.cut, behaviour.error_after):
        if isinstance(count, int):
            return count
    return None


def _breaks_at_once(behaviour: Behaviour) -> bool:
    return "before_first_token" in (behaviour.stall, behaviour.cut)


def _is_break(frame: Frame, sent: int, after: int) -> bool:
    """Whether the stream breaks before this frame; the terminal event is never sent."""
    if frame.stage == "closing":
        return True
    return sent >= after and (after > 0 or frame.stage == "content")
