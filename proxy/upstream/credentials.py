"""The one place where the keys of upstreams are read."""

from pathlib import Path

from proxy.call import Caller
from proxy.config import ConfigError, Mistake, Upstream
from proxy.errors import Unauthenticated


def read_credential(name: str, upstream: Upstream) -> str | None:
    """Our key for an upstream, or None when it has none.

    Raises:
        ConfigError: the key's file cannot be read, or holds no key.
    """
    if upstream.api_key is not None:
        return upstream.api_key.get_secret_value()
    if upstream.api_key_file is None:
        return None
    path = ("upstreams", name, "api_key_file")
    try:
        key = Path(upstream.api_key_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Mistake("configuration", None, path, f"cannot be read: {error}")]) from error
    if not key or not key.isprintable():
        raise ConfigError([Mistake("configuration", None, path, "the file holds no key")])
    return key


def credential_for(upstream: Upstream, own: str | None, caller: Caller) -> str | None:
    """The key that goes upstream with this caller's call.

    Raises:
        Unauthenticated: the upstream takes the caller's own key, and none was sent.
    """
    if upstream.credential == "own":
        return own
    if caller.credential is None:
        raise Unauthenticated("this upstream takes your own key: send it as 'Authorization: Bearer'")
    return caller.credential
