"""An HTTP answer as it is parsed: notes of its head, its body and its end.

Each exchange has a parser of its own, so nothing of one answer, such as its trailers, can be taken for a part of the
next one on the same connection.

Source: RFC 9112 §6 (message body), §9.3 (persistence); RFC 9110 §15.2 (informational answers).
"""

from httptools import HttpResponseParser

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256


class Answer:
    """The notes that a parser takes.

    `status` is 0 until the head is complete. `headers` have their names in lower case; several lines of one name are
    joined with commas.
    """

    __slots__ = (
        "_complete", "_excess", "_kept_alive", "_parser", "_parts", "_until_close", "headers", "on_body", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parts: list[bytes] = []  # what the bytes that are just being read bring of the body
        self.on_body = self._parts.append  # the parser's callback, without a frame of its own
        self._complete = False
        self._until_close = False  # only the end of the connection tells the end of the body
        self._kept_alive = False
        self._excess = False  # more came than the answer
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    @property
    def _reusable(self) -> bool:
        """Whether the connection can carry another request when this answer is complete."""
        return self._kept_alive and not self._excess

    # The parser's callbacks: they only take notes; what follows happens when all that came has been read.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("an answer to a question that nobody asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:  # a trailer: of no use to anybody here
            return
        headers, key, text = self.headers, name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        known = headers.get(key)
        headers[key] = text if known is None else f"{known}, {text}"
        if len(headers) > MAX_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        if self._parser is None:
            return
        status, headers = self._parser.get_status_code(), self.headers
        if status < 200:
            if "content-length" in headers or "transfer-encoding" in headers:
                raise ValueError("an informational answer with a body")
            headers.clear()  # 100, 102, 103: the answer is still to come
            return
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise ValueError("a transfer coding that was not asked for")
        self.status = status
        self._kept_alive = self._parser.should_keep_alive()
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers

    def on_message_complete(self) -> None:
        self._complete = self.status != 0
