"""What came back, judged: an answer is good, or there is one sentence that says why not."""

import json
from collections.abc import Mapping
from typing import Any

NOT_OCTET = "this is not Octet"
INCOMPLETE = "incomplete"
IDENTITY = "x-octet-upstream"


def fault_of_head(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Of an answer's status and headers; the body is looked at for the code of an error."""
    if status != 200:
        code = error_code(_object(body).get("error"))
        return f"HTTP {status} {code}" if code else f"HTTP {status} without an error in OpenAI's shape: {NOT_OCTET}"
    return None if headers.get(IDENTITY) else f"no header {IDENTITY}: {NOT_OCTET}"


def fault_of_completion(body: bytes) -> str | None:
    """Of a JSON answer's body."""
    try:
        choice = _object(body)["choices"][0]
        told, reason = choice["message"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        return "not a chat completion"
    return None if reason and isinstance(told, dict) else "a completion without finish_reason"


def fault_of_health(status: int, headers: Mapping[str, str]) -> str | None:
    """Of an answer to a probe."""
    if headers.get("server") != "octet":
        return f"no header server: octet: {NOT_OCTET}"
    return None if status == 200 else f"HTTP {status}"


def error_code(error: Any) -> str | None:
    """What an error object is called; None when it is none."""
    if not isinstance(error, dict):
        return None
    return str(error.get("code") or error.get("type") or "without a code")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class StreamSeen:
    """One stream, fed line by line as it comes.

    Args:
        began: when the call was sent; all times are seconds of one clock.

    Attributes:
        known: a comment has told what the headers were too early for.
        first: when the first content came.
        last: when the last one did.
        gaps: between contents.
        size: of all lines, in bytes.
        tokens: as the usage told, else how many contents there were.

    Source: WHATWG HTML, 9.2.6 (interpreting an event stream); OpenAI API reference, chat completion chunks.
    """

    def __init__(self, began: float) -> None:
        self.known = False
        self.first: float | None = None
        self.last = began
        self.gaps: list[float] = []
        self.size = 0
        self._usage = 0
        self._data: list[bytes] = []
        self._finished = self._done = False
        self._fault: str | None = None

    @property
    def tokens(self) -> int:
        return self._usage or (0 if self.first is None else 1 + len(self.gaps))

    @property
    def per_second(self) -> float | None:
        """Tokens after the first, by the time since it; None where there is too little to tell."""
        if self.first is None or self.last <= self.first or self.tokens < 2:
            return None
        return (self.tokens - 1) / (self.last - self.first)

    def feed(self, line: bytes, now: float) -> None:
        """Take one line, with or without its end."""
        self.size += len(line)
        text = line.rstrip(b"\r\n")
        if text.startswith(b":"):
            self.known = self.known or text.startswith(b": octet upstream=")
        elif text.startswith(b"data:"):
            self._data.append(text[5:].removeprefix(b" "))
        elif not text and self._data:
            data, self._data = b"\n".join(self._data), []
            self._take(data, now)

    def broke(self, why: str) -> None:
        """The connection ended, or nobody waits any longer."""
        self._fault = self._fault or why

    def fault(self) -> str | None:
        """Why this was no whole answer, when nothing more comes."""
        missing = [] if self._finished else ["no finish_reason"]
        missing += [] if self._done else ["no [DONE]"]
        missing += [] if self.first is not None else ["no content"]
        why = self._fault or ", ".join(missing)
        return f"{INCOMPLETE}: {why}" if why else None

    def _take(self, data: bytes, now: float) -> None:
        if self._done:
            self.broke("something came after [DONE]")
        elif data == b"[DONE]":
            self._done = True
        elif code := error_code((chunk := _object(data)).get("error")):
            self.broke(f"error event {code}")
        elif not chunk:
            self.broke("an event that is no JSON object")
        else:
            self._take_chunk(chunk, now)

    def _take_chunk(self, chunk: Mapping[str, Any], now: float) -> None:
        self._usage = (chunk.get("usage") or {}).get("completion_tokens", self._usage)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self._finished = self._finished or bool(choice.get("finish_reason"))
            if any(delta.get(name) for name in ("content", "reasoning", "reasoning_content", "refusal", "tool_calls")):
                if self.first is None:
                    self.first = now
                else:
                    self.gaps.append(now - self.last)
                self.last = now
