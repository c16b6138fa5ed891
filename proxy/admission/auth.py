"""Who calls: keys of ours, and keys that only pass through."""

from collections.abc import Mapping
from hashlib import sha256

from proxy.call import Caller
from proxy.config import Globs, Server
from proxy.errors import Forbidden, Unauthenticated

OWN_HEADER = "x-octet-key"
MOST_KNOWN = 1024


class Auth:
    """The callers of one configuration.

    Keys are found by their SHA-256, or in a table by Python's keyed hash: how long that takes tells nothing about how
    much of a guess was right.
    """

    def __init__(self, server: Server) -> None:
        self._callers = {
            _digest(caller.key.get_secret_value()): Caller(caller.name, caller.models) for caller in server.callers
        }
        self._known: dict[str, Caller] = {}  # by the whole header, as it was accepted before
        self._operator = _digest(server.admin_token.get_secret_value()) if server.admin_token is not None else None
        self._models = {caller.name: Globs(caller.models) for caller in server.callers}

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """The caller that shows a key of ours, or anybody when there are no callers.

        Raises:
            Unauthenticated: no key, or one that we do not know.
        """
        sent = headers.get("authorization", "")
        own = headers.get(OWN_HEADER)
        if own is None and sent in self._known:
            return self._known[sent]
        bearer = _bearer(sent)
        if not self._callers:
            return Caller(credential=bearer)
        shown = own or bearer
        if not shown:
            raise Unauthenticated("you did not send a key: send 'Authorization: Bearer KEY'")
        caller = self._callers.get(_digest(shown))
        if caller is None:
            raise Unauthenticated("incorrect API key provided")
        if own is None and len(self._known) < MOST_KNOWN:
            self._known[sent] = caller
        theirs = bearer if own and bearer and _digest(bearer) not in self._callers else None
        return Caller(caller.name, caller.models, credential=theirs)

    def is_operator(self, headers: Mapping[str, str]) -> bool:
        """Whether `server.admin_token` is shown; never, when there is none."""
        shown = _bearer(headers.get("authorization", ""))
        return shown is not None and self._operator is not None and _digest(shown) == self._operator

    @property
    def has_operator(self) -> bool:
        """Whether there is such a token."""
        return self._operator is not None

    def check_model(self, caller: Caller, model: str) -> None:
        """Raises Forbidden when the caller may not ask for the model."""
        if not self.may_use(caller, model):
            raise Forbidden("your key may not use this model", param="model", code="model_not_allowed")

    def may_use(self, caller: Caller, model: str) -> bool:
        return caller.name is None or self._models[caller.name].fit(model)


def _bearer(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token and token.isprintable() and token.isascii() else None


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
