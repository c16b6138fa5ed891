"""How things are when all is over: what is still held, and whether the books agree."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.cache.redis_bytes import CONNECTIONS
from proxy.shared_state.state import MOST_CONNECTIONS
from tests.chaos.nouns import Complaint, Life, Window
from tests.chaos.processes import SidecarServer
from tests.chaos.stage import Stage

Metrics = Mapping[str, Mapping[str, float]]
NOTHING_LEFT = (
    "octet_slots_in_use", "octet_queue_length", "octet_open_streams", "octet_buffered_bytes", "octet_flights",
    "octet_caller_connections", "octet_connections", "octet_circuit_state",
)  # fmt: skip
CALM = ("redis", "callers (listens)", "admin (listens)", "admin")  # sockets that may be there at rest
REDIS = ("redis", "redis (half closed)")
MOST_CLIENTS = CONNECTIONS + MOST_CONNECTIONS + 1  # which keep as many as they have once needed; one listens


@dataclass
class Footprint:
    """What a process holds."""

    descriptors: int = 0
    resident_bytes: int = 0
    sockets: Counter[str] = field(default_factory=Counter)  # by what they are connected to, and their state


def footprint(pid: int, ports: Mapping[int, str]) -> Footprint:
    """Of a process now.

    Args:
        ports: names of what its sockets may be connected to.
    """
    found = Footprint()
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            where = str(link.readlink())
        except FileNotFoundError:
            continue
        found.descriptors += 1
        if where.startswith("socket:["):
            inodes.add(where[8:-1])
    for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        cells = row.split()
        if cells[9] in inodes:
            local, far = (int(cells[place].partition(":")[2], 16) for place in (1, 2))
            state = {"01": "", "08": " (half closed)", "0A": " (listens)"}.get(cells[3], f" ({cells[3]})")
            name = ports.get(far) or ports.get(local) or "elsewhere"
            found.sockets[name + state] += 1
    status = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    found.resident_bytes = int(status[1]) * 1024 if status else 0
    return found


def ports(stage: Stage, sidecar: SidecarServer) -> dict[int, str]:
    """What the ports of the stage are to this sidecar."""
    return {
        stage.redis.port: "redis",
        stage.wire.port: "an upstream",
        stage.simulator.port: "an upstream",
        **{echo.port: "an upstream" for echo in stage.echoes.values()},
        sidecar.port: "callers",
        int(sidecar.admin.rpartition(":")[2]): "admin",
    }


def held(metrics: Metrics) -> list[str]:
    """What the metrics of a process show that should be nothing at rest."""
    return [
        f"{name}{{{labels}}} is {value:g}"
        for name in NOTHING_LEFT
        for labels, value in metrics.get(name, {}).items()
        if value
    ]


def allowed(windows: Sequence[Window]) -> set[str]:
    """Names of the sockets that may be there at rest: Redis' clients hear that Redis has gone when they next ask it."""
    return {*CALM, *(REDIS if any(each.lane == "redis" for each in windows) else [])}


def left(
    sidecar: str, metrics: Metrics, now: Footprint, base: Footprint, sockets: Collection[str]
) -> Iterator[Complaint]:
    """What a process still holds, beside sockets of these names."""
    for each in held(metrics):
        yield Complaint("rest", sidecar, each)
    if metrics["octet_redis_up"][""] != 1:
        yield Complaint("rest", sidecar, "octet_redis_up is not 1")
    if metrics["octet_config_last_reload_successful"][""] != 1:
        yield Complaint("rest", sidecar, "the last configuration is not in force")
    for name, count in now.sockets.items():
        if name not in sockets:
            yield Complaint("rest", sidecar, f"{count} sockets are left: {name}")
    clients = sum(now.sockets[name] for name in REDIS)
    if clients > MOST_CLIENTS:
        yield Complaint("rest", sidecar, f"{clients} connections to Redis")
    if _own(now) > _own(base):
        text = f"{_own(now)} descriptors beside Redis' clients and ours, and {_own(base)} at the beginning"
        yield Complaint("rest", sidecar, text)


def _own(found: Footprint) -> int:
    """Descriptors but for those of Redis' clients, and of us who look at the admin side."""
    return found.descriptors - sum(found.sockets[name] for name in (*REDIS, "admin"))


def books(life: Life, metrics: Metrics) -> Iterator[Complaint]:
    """Whether the counters of a process are the sums of its access lines."""
    counted: Counter[str] = Counter()
    for labels, value in metrics.get("octet_calls_total", {}).items():
        outcome = re.search(r'outcome="(\w+)"', labels)
        assert outcome is not None
        counted[outcome[1]] += int(value)
    written = Counter(line["outcome"] for line in life.lines)
    if +counted != written:
        yield Complaint("books", life.sidecar, f"metrics count {dict(+counted)}, and the lines {dict(written)}")
    if metrics["octet_access_lines_lost_total"][""]:
        yield Complaint("books", life.sidecar, "access lines were lost")
    cost = sum(metrics.get("octet_cost_usd_total", {}).values())
    charged = sum(line["cost_usd"] or 0.0 for line in life.lines)
    if abs(cost - charged) > 1e-9 * (1 + len(life.lines)):
        yield Complaint("books", life.sidecar, f"octet_cost_usd_total is {cost:.9f}, and the lines say {charged:.9f}")


def faults_told(life: Life) -> Iterator[Complaint]:
    """What a process says on standard error that it never should, and how it ended."""
    if "Traceback" in life.told:
        place = life.told.index("Traceback")
        yield Complaint("logs", life.sidecar, f"a traceback: {life.told[max(0, place - 200) : place + 3000]}")
    for line in life.told.splitlines():
        if " ERROR " in line and "the configuration is not taken over" not in line:
            yield Complaint("logs", life.sidecar, line)
    if life.how != "killed" and life.exit_code != 0:
        yield Complaint("logs", life.sidecar, f"SIGTERM ended it with {life.exit_code}")
