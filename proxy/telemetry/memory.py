"""How much memory this process may have.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst (`memory.max`) and cgroup-v1/memory.rst (`limit_in_bytes`).
"""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIPS = Path("/proc/self/cgroup")
_UNLIMITED = 2**60  # version 1 says so with a number near 2**63


def memory_limit(root: Path = _ROOT, memberships: Path = _MEMBERSHIPS) -> int | None:
    """The least limit in bytes of the control groups that this process is in; None where there is none."""
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return None
    limits = list[int]()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(top: Path, path: str, name: str) -> list[int]:
    """Those of a group and the ones around it; in a container, what it sees as the top is its own."""
    own = top / path.lstrip("/")
    found = list[int]()
    for group in (own, *own.parents):
        if not group.is_relative_to(top):
            break
        try:
            text = (group / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _UNLIMITED:
            found.append(int(text))
    return found
