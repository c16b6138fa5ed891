"""What every failure has, and the failures that are ours."""

from typing import ClassVar

NO_RETRY = {"x-should-retry": "false"}  # a header for the caller's client
MAX_MESSAGE = 2000  # characters of an upstream's text that are passed on


class ProxyError(Exception):
    """A failure that can be told to the caller as an OpenAI error object."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    own_headers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message[:MAX_MESSAGE]
        self.param = param
        self.headers = {**self.own_headers, **(headers or {})}
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    @property
    def reason(self) -> str:
        """The failure's name in metrics and logs: a bounded set, never a text from outside."""
        return type(self).__name__


class ProxyFault(ProxyError):
    """We are wrong."""


class Stopping(ProxyFault):
    """The sidecar is shutting down and `drain_seconds` are over."""

    status = 503
    code = "shutting_down"


class Overcrowded(ProxyFault):
    """So many at once are served, and no more."""

    status = 503
    code = "too_many"
