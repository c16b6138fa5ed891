"""What a caller makes of an answer: reads it to its end, and says how it ended."""

import json
from typing import Any

import aiohttp

from tests.chaos.nouns import Call


class Left(Exception):
    """The caller has had enough."""


async def read(response: aiohttp.ClientResponse, call: Call) -> None:
    """Take an answer to its end, into `call`; raises Left where the caller hangs up, and what breaks on the way."""
    headers = response.headers
    call.status = response.status
    call.request_id = headers.get("x-request-id", "")
    call.cache = headers.get("x-octet-cache", "")
    call.upstream = headers.get("x-octet-upstream", "")
    call.attempts = int(headers["x-octet-attempts"]) if "x-octet-attempts" in headers else None
    if response.status != 200:
        _read_error(await response.read(), call)
    elif headers["content-type"].startswith("text/event-stream"):
        await _read_stream(response, call)
    else:
        _read_whole(await response.read(), call)


def _wrong(call: Call, detail: str) -> None:
    call.how, call.detail = "wrong", detail


def _read_error(body: bytes, call: Call) -> None:
    try:
        error = json.loads(body)["error"]
        call.code, call.detail = str(error["code"]), str(error["message"])
        complete = {"message", "type", "param", "code"} <= error.keys() and error["message"]
    except (ValueError, KeyError, TypeError):
        _wrong(call, f"status {call.status}, and no error object: {body[:100]!r}")
        return
    call.how = "failed"
    if not complete:
        _wrong(call, f"an error object that lacks something: {error}")


def _read_whole(body: bytes, call: Call) -> None:
    try:
        answer = json.loads(body)
        (choice,) = answer["choices"]
        call.text = choice["message"]["content"]
        call.completion_tokens = (answer.get("usage") or {}).get("completion_tokens")
        call.how = "whole"
        if choice["finish_reason"] != "stop":
            _wrong(call, f"finish_reason {choice['finish_reason']!r}")
    except (ValueError, KeyError, TypeError) as error:
        _wrong(call, f"a 200 that is no completion ({error}): {body[:100]!r}")


async def _read_stream(response: aiohttp.ClientResponse, call: Call) -> None:
    """Events until the body's end, which has to come."""
    events, state = 0, ""  # "", "finished", "done", "error"
    async for raw in response.content:
        line = raw.strip()
        if line.startswith(b": octet upstream="):
            _take_comment(line.decode(), call)
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if state in ("done", "error"):
            _wrong(call, f"an event after the last one ({state}): {data[:100]!r}")
            return
        if data == b"[DONE]":
            if state != "finished":
                _wrong(call, "[DONE] without a finish_reason")
                return
            state = "done"
            continue
        state, more = _take_event(json.loads(data), state, call)
        events += more
        if call.ask.leave_events is not None and events >= call.ask.leave_events:
            raise Left
    if state == "error":
        call.how = "broken"
    elif state == "done":
        call.how = "whole"
    else:
        _wrong(call, f"a stream whose body ends well without [DONE] and without an error ({state or 'in the middle'})")


def _take_comment(line: str, call: Call) -> None:
    """The head went out before an upstream had answered: this is its gist."""
    said = dict(part.partition("=")[::2] for part in line.split()[2:])
    call.upstream, call.attempts = said["upstream"], int(said["attempts"])


def _take_event(event: dict[str, Any], state: str, call: Call) -> tuple[str, bool]:
    """The state after an event, and whether it had content."""
    if "error" in event:
        call.code = str(event["error"].get("code"))
        return "error", False
    if event.get("usage"):
        call.completion_tokens = event["usage"].get("completion_tokens")
    had = False
    for choice in event["choices"]:
        content = choice["delta"].get("content")
        if content:
            if state == "finished":
                call.detail = "content after the finish_reason"
            call.text += content
            had = True
        if choice.get("finish_reason"):
            state = "finished"
    return state, had
