"""Where a Redis is: one server, a service that sentinels watch, or a cluster. Pure."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

DEFAULT_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_URL = re.compile(
    r"(?P<scheme>unix|rediss?(?:\+(?:sentinel|cluster))?)://"
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^/?#@]*)(?P<path>/[^?#]*)?(?:\?db=(?P<db>\d{1,5}))?"
)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>\d{1,5}))?")
_PATHS = {
    "server": re.compile(r"/?(?P<db>\d{0,5})"),
    "sentinel": re.compile(r"/(?P<service>[A-Za-z0-9_.-]+)(?:/(?P<db>\d{1,5}))?"),
    "cluster": re.compile(r"/?(?:0)?(?P<db>)"),
}
_ADVICE = (
    "write a URL such as redis://host:6379/0, rediss://host:6379, unix:///run/redis.sock, "
    "redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379"
)


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A Redis's address.

    Args:
        hosts: with their ports: of the server, of sentinels, or of some of a cluster's nodes.
        path: of the unix socket, if it is one.
        service: the name under which sentinels know it.
    """

    kind: Literal["server", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False


def parse_redis_url(text: str) -> RedisPlace:
    """Read an address.

    Raises:
        ValueError: saying how one is written; the text, which may hold a password, is not quoted.
    """
    found = _URL.fullmatch(text.strip())
    if found is None or not text.strip().isprintable() or " " in text.strip():
        raise ValueError(_ADVICE)
    scheme, path = found["scheme"], found["path"] or ""
    username, password = unquote(found["user"] or "") or None, unquote(found["password"] or "") or None
    if scheme == "unix":
        if found["hosts"] or len(path) < len("/x"):
            raise ValueError(_ADVICE)
        db = int(found["db"] or 0)
        return RedisPlace("server", path=unquote(path), db=db, username=username, password=password)
    kind: Literal["server", "sentinel", "cluster"] = "server"
    if scheme.endswith("+sentinel"):
        kind = "sentinel"
    elif scheme.endswith("+cluster"):
        kind = "cluster"
    rest = _PATHS[kind].fullmatch(path)
    hosts = tuple(_host(each, DEFAULT_PORTS[kind]) for each in found["hosts"].split(","))
    if rest is None or (kind == "server" and len(hosts) > 1):
        raise ValueError(_ADVICE)
    db = int(rest["db"] or found["db"] or 0)
    if kind == "cluster" and db:
        raise ValueError(_ADVICE)
    service = rest["service"] if kind == "sentinel" else ""
    return RedisPlace(kind, hosts, "", service, db, username, password, scheme.startswith("rediss"))


def _host(text: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or default) if found is not None else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(_ADVICE)
    return found["six"] or found["name"], port
