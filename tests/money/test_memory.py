"""How much memory the process may have is what its control groups say."""

from pathlib import Path

import pytest

from proxy.telemetry import Telemetry
from proxy.telemetry.memory import memory_limit


def groups(top: Path, membership: str, **limits: str) -> int | None:
    """The limit under a tree of groups; the names of limits are paths, with `__` for slashes."""
    for name, text in limits.items():
        path = top / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    memberships = top / "membership"
    memberships.write_text(membership)
    return memory_limit(top, memberships)


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"memory_dot_max": "max"}, None),
        ("0::/\n", {"memory_dot_max": "134217728"}, 134217728),
        ("0::/a/b\n", {"a__b__memory_dot_max": "200", "a__memory_dot_max": "100"}, 100),
        ("0::/a/b\n", {"a__b__memory_dot_max": "200", "a__memory_dot_max": "max"}, 200),
        ("4:memory:/a\n", {"memory__a__memory_dot_limit_in_bytes": "300"}, 300),
        ("4:memory:/a\n", {"memory__a__memory_dot_limit_in_bytes": "9223372036854771712"}, None),
        ("4:cpu,memory:/elsewhere\n", {"memory__memory_dot_limit_in_bytes": "500"}, 500),  # in a container
        ("3:cpu:/a\n", {"memory__a__memory_dot_limit_in_bytes": "300"}, None),
        ("", {}, None),
        ("0::/\n", {"memory_dot_max": "a lot"}, None),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, membership: str, limits: dict[str, str], expected: int | None) -> None:
    """Of the group that the process is in and those around it, of both versions; none is none."""
    assert groups(tmp_path, membership, **limits) == expected


def test_where_there_are_no_groups(tmp_path: Path) -> None:
    """On other systems nothing can be told."""
    assert memory_limit(tmp_path, tmp_path / "nothing") is None


def test_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric is there where there is a limit, and absent where there is none."""
    for limit in (None, 2**30):
        monkeypatch.setattr("proxy.telemetry.metrics.memory_limit", lambda limit=limit: limit)
        registry = Telemetry(lambda _: None).registry
        assert registry.get_sample_value("octet_memory_limit_bytes") == limit
