"""An upstream that says for whom it answers: `python -m tests.chaos.echo NAME PORT LOG`.

An answer is `<for|serial|question>`, numbered tokens, and ` end`: whose it is, whether it is whole, and whether it has
been given before can be told from its text alone. What it begins and ends is written to a log that outlives it.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

CREATED = 1_700_000_000


class Echo:
    """Answers chat completions; `fault` says what it does instead, to a share of the calls."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._count = 0
        self._open = 0
        self._fault: dict[str, Any] = {}
        self._chance = random.Random(name)

    def note(self, **what: object) -> None:
        """Write a line at once."""
        os.write(self._log, json.dumps({"at": time.time(), "upstream": self.name, **what}).encode() + b"\n")

    async def control(self, request: web.Request) -> web.Response:
        """PUT a fault, `{}` for none; GET what is open."""
        if request.method == "PUT":
            self._fault = await request.json()
        return web.json_response({"name": self.name, "pid": os.getpid(), "open_calls": self._open})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """One call, from its first byte to its last."""
        body = await request.json()
        fault = self._fault if self._chance.random() < self._fault.get("share", 1.0) else {}
        self._count += 1
        serial = f"{self.name}.{os.getpid()}.{self._count}"
        self._open += 1
        self.note(event="begin", serial=serial, made_for=body.get("user", ""))
        how = "left"
        try:
            response, how = await self._answer(request, body, serial, fault)
            return response
        except ConnectionError:
            if fault:
                how = "aborted"
            raise
        finally:
            self._open -= 1
            self.note(event="end", serial=serial, how=how)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], serial: str, fault: dict[str, Any]
    ) -> tuple[web.StreamResponse, str]:
        asked = json.loads(body["messages"][-1]["content"])
        head = f"<{body.get('user', '')}|{serial}|{asked['question']}>"
        pieces = [head, *(f" {number}" for number in range(asked["tokens"])), " end"]
        kind = fault.get("kind", "")
        if kind == "status":
            error = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
            return web.json_response(error, status=fault["status"], headers=fault.get("headers", {})), "fault"
        if kind == "garbage":
            return web.Response(text="<html><title>Proxy</title></html>", content_type="text/html"), "fault"
        if kind == "stall" and not fault.get("after"):
            await asyncio.sleep(3600)
        created = int(CREATED + fault.get("skew", 0))
        if body.get("stream"):
            return await self._stream(request, body, pieces, asked["pace"], created, fault)
        await asyncio.sleep(asked["pace"] * len(pieces))
        if kind:
            _abort(request)
        choice = {"index": 0, "message": _message("".join(pieces)), "logprobs": None, "finish_reason": "stop"}
        answer = {**_envelope(body, "chat.completion", created), "choices": [choice], "usage": _usage(pieces)}
        response = web.json_response(answer, headers=fault.get("headers", {}))
        await response.prepare(request)
        await response.write_eof()
        return response, "whole"

    async def _stream(
        self, request: web.Request, body: dict[str, Any], pieces: list[str], pace: float, created: int,
        fault: dict[str, Any],
    ) -> tuple[web.StreamResponse, str]:  # fmt: skip
        kind, after = fault.get("kind", ""), fault.get("after", 0)
        envelope = _envelope(body, "chat.completion.chunk", created)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **fault.get("headers", {})})
        await response.prepare(request)
        for count, piece in enumerate(pieces):
            if kind and count >= min(after, len(pieces) - 1):
                await _break(request, response, kind)
                return response, "fault"
            await response.write(_event({**envelope, "choices": [_choice({"content": piece})]}))
            await asyncio.sleep(pace)
        last = _event({**envelope, "choices": [_choice({}, "stop")]})
        if (body.get("stream_options") or {}).get("include_usage"):
            last += _event({**envelope, "choices": [], "usage": _usage(pieces)})
        await response.write(last + b"data: [DONE]\n\n")
        await response.write_eof()
        return response, "whole"


async def _break(request: web.Request, response: web.StreamResponse, kind: str) -> None:
    """End a stream in its middle, as the fault says."""
    if kind == "stall":
        await asyncio.sleep(3600)
    if kind == "cut":
        _abort(request)
    if kind == "error":
        await response.write(b'data: {"error": {"message": "no", "type": "server_error", "code": null}}\n\n')
    elif kind == "frames":
        await response.write(b'data: {"choices": [{]}\n\n')
    await response.write_eof()  # "short": a good end of the body, too early


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("on purpose")


def _envelope(body: dict[str, Any], kind: str, created: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{created}", "object": kind, "created": created, "model": body["model"]}


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None}


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _usage(pieces: list[str]) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": len(pieces), "total_tokens": 10 + len(pieces)}


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


async def serve(name: str, port: int, log: Path) -> None:
    """Until SIGTERM."""
    echo, stopped = Echo(name, log), asyncio.Event()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", echo.chat)
    app.router.add_route("*", "/_echo", echo.control)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    sys.stderr.write(f"echo {name} listens\n")
    sys.stderr.flush()
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
