"""Raw HTTP: requests in bytes, and answers that are read as strictly as RFC 9112 writes them."""

import asyncio
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ([ -~]*)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([ -~]*)")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
CHAT = "/v1/chat/completions"
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
MARKER = b"GET /v1/models/gpt-4o-mini HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer; names of headers in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.headers}

    def all(self, name: str) -> list[str]:
        """The values of a header, however often it is there."""
        return [value for key, value in self.headers if key == name]


def head(*lines: bytes, method: str = "POST", target: str | bytes = CHAT, version: str = "1.1") -> bytes:
    """A request's head, with a Host."""
    where = target if isinstance(target, bytes) else target.encode()
    first = b"%b %b HTTP/%b" % (method.encode(), where, version.encode())
    return b"\r\n".join([first, b"Host: a", *lines, b"", b""])


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def read_answers(data: bytes, bodiless: Sequence[int] = ()) -> list[Answer]:
    """All answers in these bytes, to their last byte; 100 Continue is passed over.

    Args:
        bodiless: numbers of the answers, from 0, that are to HEAD: no body follows.
    """
    answers: list[Answer] = []
    while data:
        first, _, rest = data.partition(b"\r\n\r\n")
        assert data != first, f"no whole head: {data[:80]!r}"
        line, *lines = first.split(b"\r\n")
        status = _STATUS.fullmatch(line)
        assert status, f"no status line: {line[:80]!r}"
        fields = [_FIELD.fullmatch(each) for each in lines]
        assert all(fields), f"no header lines: {lines!r}"
        headers = [(field[1].decode().lower(), field[2].decode()) for field in fields if field is not None]
        body, data = b"", rest
        if int(status[1]) >= 200 and int(status[1]) != 204 and len(answers) not in bodiless:
            body, data = _body(headers, rest)
        if int(status[1]) >= 200:
            answers.append(Answer(int(status[1]), headers, body))
    return answers


def _body(headers: list[tuple[str, str]], data: bytes) -> tuple[bytes, bytes]:
    lengths = [value for name, value in headers if name == "content-length"]
    codings = [value for name, value in headers if name == "transfer-encoding"]
    assert len(lengths) + len(codings) == 1, "a body's end is told once"
    if lengths:
        size = int(lengths[0])
        assert len(data) >= size, "the body is whole"
        return data[:size], data[size:]
    assert codings == ["chunked"]
    body = b""
    while True:
        size_line = _CHUNK.match(data)
        assert size_line, f"no chunk: {data[:40]!r}"
        size, data = int(size_line[1], 16), data[size_line.end() :]
        assert data[size : size + 2] == b"\r\n"
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data


async def talk(address: tuple[str, int], *parts: bytes, patience: float = 10.0) -> bytes:
    """All that a server says to these bytes until it closes; each part leaves when the one before has been sent.

    Raises:
        TimeoutError: it does not close.
    """
    reader, writer = await asyncio.open_connection(*address)
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.timeout(patience):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    finally:
        writer.transport.abort()


def lines_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of each header line of a request's head, as they stand."""
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b": ")
        yield name.lower(), value
