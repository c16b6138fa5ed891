"""Requests that two readers may end at different places; after each comes one that a strict reader must not see."""

from tests.security.wire import BODY, CHUNKED, LENGTH, chunked, head

SIZE = len(BODY)
COUNT = b"%x" % SIZE
WHOLE = chunked(BODY)


def _coded(value: bytes, *more: bytes) -> bytes:
    return head(b"Transfer-Encoding: " + value, *more) + WHOLE


def _counted(value: bytes) -> bytes:
    return head(b"Content-Length: " + value) + BODY


def _pieces(data: bytes) -> bytes:
    return head(CHUNKED) + data


# Whatever reads them, these are refused: one answer, 400 or 413, and the end of the connection.
REFUSED: dict[str, bytes] = {
    "a length and chunks": head(LENGTH, CHUNKED) + WHOLE,
    "chunks and a shorter length": head(CHUNKED, b"Content-Length: 4") + WHOLE,
    "two lengths": head(LENGTH, b"Content-Length: 3") + BODY,
    "the same length twice": head(LENGTH, LENGTH) + BODY,
    "a list of lengths": _counted(b"%d, %d" % (SIZE, SIZE)),
    "a length with a sign": _counted(b"+%d" % SIZE),
    "a negative length": _counted(b"-1"),
    "a length with a space in it": _counted(b"6 7"),
    "a length in hexadecimal": _counted(b"0x" + COUNT),
    "a length with an underscore": _counted(b"6_7"),
    "a length in other digits": _counted("\u0666\u0667".encode()),
    "an empty length": _counted(b""),
    "a length behind a vertical tab": _counted(b"\x0b%d" % SIZE),
    "a length with a NUL": _counted(b"%d\0" % SIZE),
    "a length beyond 64 bits": _counted(b"%d" % (2**64 + SIZE)),
    "a length with a space before the colon": head(b"Content-Length : %d" % SIZE) + BODY,
    "a length with a tab before the colon": head(b"Content-Length\t: %d" % SIZE) + BODY,
    "a folded length": b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n Content-Length: 3\r\n"
    + LENGTH
    + b"\r\n\r\n",
    "identity": _coded(b"identity", LENGTH),
    "chunked is not the last coding": _coded(b"chunked, identity"),
    "an unknown coding": _coded(b"xchunked"),
    "an unknown coding and a length": _coded(b"xchunked", LENGTH),
    "chunked in two lines": _coded(b"chunked", CHUNKED),
    "chunked behind a vertical tab": _coded(b"\x0bchunked"),
    "chunked in quotes": _coded(b'"chunked"'),
    "chunked with a parameter": _coded(b"chunked;a=b"),
    "chunked with the Kelvin sign": _coded("chun\u212aed".encode()),
    "a coding with a space before the colon": head(b"Transfer-Encoding : chunked") + WHOLE,
    "a coding with a tab before the colon": head(b"Transfer-Encoding\t: chunked") + WHOLE,
    "a folded coding": head(b"Transfer-Encoding:\r\n chunked") + WHOLE,
    "a folded header": head(b"X-A: 1\r\n b", LENGTH) + BODY,
    "line feeds alone": head(LENGTH).replace(b"\r\n", b"\n") + BODY,
    "a line feed in the head": head(LENGTH).replace(b"a\r\n", b"a\n") + BODY,
    "a line feed at the head's end": head(LENGTH)[:-2] + b"\n" + BODY,
    "a carriage return between headers": head(LENGTH).replace(b"a\r\n", b"a\r") + BODY,
    "a carriage return in a value": head(b"X-A: a\rContent-Length: 3", LENGTH) + BODY,
    "a NUL in a value": head(b"X-A: a\0b", LENGTH) + BODY,
    "a NUL in a name": head(b"X\0A: b", LENGTH) + BODY,
    "a carriage return in a name": head(b"X\rA: b", LENGTH) + BODY,
    "a letter beyond ASCII in a name": head(b"X\xe9A: b", LENGTH) + BODY,
    "a header without a name": head(b": b", LENGTH) + BODY,
    "a header without a colon": head(b"XA", LENGTH) + BODY,
    "no host": head(LENGTH).replace(b"Host: a\r\n", b"") + BODY,
    "two hosts": head(b"Host: b", LENGTH) + BODY,
    "a negative chunk": _pieces(b"-1\r\n%b\r\n0\r\n\r\n" % BODY),
    "a chunk's size with a sign": _pieces(b"+%b\r\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "a chunk's size with 0x": _pieces(b"0x%b\r\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "a chunk's size with an underscore": _pieces(b"4_3\r\n%b\r\n0\r\n\r\n" % BODY),
    "a space before a chunk's size": _pieces(b" %b\r\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "a space behind a chunk's size": _pieces(b"%b \r\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "no size of a chunk": _pieces(b"\r\n%b\r\n0\r\n\r\n" % BODY),
    "chunks with line feeds": _pieces(b"%b\n%b\n0\n\n" % (COUNT, BODY)),
    "no line end behind a chunk": _pieces(b"%b\r\n%b0\r\n\r\n" % (COUNT, BODY)),
    "two letters behind a chunk": _pieces(b"%b\r\n%bXX0\r\n\r\n" % (COUNT, BODY)),
    "a line feed in a chunk's extension": _pieces(b"%b;a=\n\r\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "an extension that a line feed ends": _pieces(b"%b;\n%b\r\n0\r\n\r\n" % (COUNT, BODY)),
    "a trailer that is none": _pieces(b"%b\r\n%b\r\n0\r\nGARBAGE\r\n\r\n" % (COUNT, BODY)),
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /v1/models\r\n\r\n",
    "tabs in the first line": head(LENGTH).replace(b" /v1/chat/completions ", b"\t/v1/chat/completions\t") + BODY,
    "no target": head(LENGTH).replace(b" /v1/chat/completions ", b" ") + BODY,
    "a method with a sign in it": head(LENGTH, method="P@ST") + BODY,
    "a request behind the last": head(LENGTH, b"Connection: close") + BODY,
    "a request behind one of HTTP/1.0": head(LENGTH, version="1.0") + BODY,
}

# These bodies have one end for every reader, whatever surrounds them.
ACCEPTED: dict[str, bytes] = {
    "a length": head(LENGTH) + BODY,
    "chunks": head(CHUNKED) + WHOLE,
    "chunks of a byte": head(CHUNKED) + chunked(*(bytes([each]) for each in BODY)),
    "a length with zeros before it": _counted(b"000%d" % SIZE),
    "spaces behind a length": _counted(b"%d  " % SIZE),
    "chunked in capitals": head(b"TRANSFER-ENCODING: CHUNKED") + WHOLE,
    "chunked behind a tab": head(b"Transfer-Encoding:\tchunked") + WHOLE,
    "an extension of a chunk": _pieces(b'%b;a=b;c="d"\r\n%b\r\n0\r\n\r\n' % (COUNT, BODY)),
    "zeros before a chunk's size": _pieces(b"0000%b\r\n%b\r\n000\r\n\r\n" % (COUNT, BODY)),
    "a header that only looks like the coding": head(b"Transfer_Encoding: chunked", LENGTH) + BODY,
    "a header that only looks like the length": head(b"Content_Length: 3", LENGTH) + BODY,
    "empty lines before the request": b"\r\n\r\n" + head(LENGTH) + BODY,
    "HTTP/1.0 that stays": head(LENGTH, b"Connection: keep-alive", version="1.0") + BODY,
    "an expectation that nobody knows": head(LENGTH, b"Expect: 200-maybe") + BODY,
}

# Answers that are no 200, with a body that must be taken from the connection all the same.
TURNED_DOWN: dict[str, tuple[bytes, int]] = {
    "no such path": (head(LENGTH, target="/v1/nothing") + BODY, 404),
    "no such path, in chunks": (head(CHUNKED, target="/v1/nothing") + WHOLE, 404),
    "no such method": (head(LENGTH, target="/v1/models") + BODY, 405),
    "no JSON": (head(LENGTH, b"Content-Type: text/plain") + BODY, 415),
    "a body where none is wanted": (head(LENGTH, method="GET", target="/v1/models/gpt-4o-mini") + BODY, 200),
}
