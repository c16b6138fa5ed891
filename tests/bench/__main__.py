"""Measures the sidecar beside references, in one run: `make bench`, `make bench-check`.

The subject has one core, the load and the mock upstream another. Every figure is the best of several rounds that go
through all subjects in turn, so that a noisy moment hits all alike. CPU time is what the scheduler counted for the
subject's process; only ratios within one run mean something.
"""

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from tests.bench import load
from tests.bench.subjects import DIALECT, KEY, Subject, Workshop

BUDGET = Path(__file__).with_name("budget.json")
PATH = "/v1/chat/completions"
CHUNKS = 50


@dataclass(frozen=True)
class Case:
    """One kind of work; `chunks` is 0 for a JSON call."""

    name: str
    model: str
    size: int = 1024
    connections: int = 32
    rounds: int = 60
    chunks: int = 0
    dialect: str = ""
    only_octet: bool = False
    headers: str = ""

    @property
    def request(self) -> bytes:
        messages = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": ""}]
        fields = {"model": self.model, "messages": messages, "temperature": 0.7, "max_tokens": 256, "user": "u-1"}
        if self.chunks:
            fields["stream"] = True
        messages[1]["content"] = "word " * ((self.size - len(json.dumps(fields))) // 5)
        headers = f"Authorization: Bearer {KEY}\r\nUser-Agent: OpenAI/Python 2.0\r\nAccept: application/json\r\n"
        if self.dialect:
            headers += f"{DIALECT}: {self.dialect}\r\n"
        return load.request(PATH, json.dumps(fields).encode(), headers + self.headers)


def stream(name: str, dialect: str = "", model: str = f"bench-{CHUNKS}x20", *, only_octet: bool = True) -> Case:
    return Case(name, model, connections=32, rounds=3, chunks=CHUNKS, dialect=dialect, only_octet=only_octet)


JSON = Case("json 1 KB", "bench-600")
STREAM = stream("stream", only_octet=False)
RENAMED = Case("json 1 KB, renamed", "alias-600", only_octet=True)
KEPT = Case("json 1 KB, kept", "kept", only_octet=True)  # given from memory
# As RENAMED, but looked for, not found, and kept; the header stands for a body that is another each time.
KEPT_ANEW = Case("json 1 KB, kept anew", "kept", only_octet=True, headers="Cache-Control: no-cache\r\n")
CASES = [
    JSON,
    Case("json 1 KB, 1 connection", "bench-600", connections=1, rounds=1000),
    Case("json 1 KB, 256 connections", "bench-600", connections=256, rounds=8),
    Case("json 20 KB", "bench-20000", size=20_000, rounds=30),
    Case("json 1 MB", "bench-1000000", size=1_000_000, connections=4, rounds=10),
    RENAMED,
    KEPT,
    KEPT_ANEW,
    STREAM,
    stream("stream, renamed", model="alias"),
    stream("stream, anthropic", "anthropic"),
    stream("stream, ollama", "ollama"),
]
QUICK = [JSON, KEPT, STREAM, *CASES[-2:]]


async def cpu(subject: Subject, case: Case, folder: Path) -> float:
    """CPU time per call or stream, in microseconds."""
    request = case.request
    await load.run(subject.port, request, connections=case.connections, rounds=1, chunks=case.chunks)
    before = subject.cpu_seconds()
    if not case.chunks and shutil.which("wrk"):
        count = await wrk_for(subject, case, folder)
    else:
        await load.run(subject.port, request, connections=case.connections, rounds=case.rounds, chunks=case.chunks)
        count = case.connections * case.rounds
    return (subject.cpu_seconds() - before) / count * 1e6


async def wrk_for(subject: Subject, case: Case, folder: Path, seconds: int = 1) -> int:
    """Load by wrk; the number of answers. Without wrk, our own client's load, however long that takes."""
    wrk = shutil.which("wrk")
    if wrk is None:
        seen = await load.run(subject.port, case.request, connections=case.connections, rounds=seconds * 100)
        return len(seen.waits)
    head, _, body = case.request.partition(b"\r\n\r\n")
    script = folder / "load.lua"
    headers = (line.partition(": ") for line in head.decode().split("\r\n")[2:] if "Length" not in line)
    script.write_text(
        'wrk.method = "POST"\n'
        + "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, _, value in headers)
        + f"wrk.body = [==[{body.decode()}]==]\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(
            wrk,
            "-t1",
            f"-c{case.connections}",
            f"-d{seconds}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{subject.port}{PATH}",
        ),
        stdout=subprocess.PIPE,
    )
    told = (await process.communicate())[0].decode()
    found = re.search(r"(\d+) requests in", told)
    if found is None or int(found[1]) == 0 or "Non-2xx" in told or re.search(r"(connect|read|write) [1-9]", told):
        raise load.BadAnswer(told)
    return int(found[1])


async def latencies(subjects: Sequence[Subject], direct: int) -> dict[str, dict[str, float]]:
    """What a subject adds to a call at one connection, in microseconds: medians and 99th percentiles' differences."""
    quick = Case("first", "bench-5x1", chunks=5)
    calls: dict[str, list[float]] = {name: [] for name in ("direct", *(each.name for each in subjects))}
    firsts: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(10):
        for name, port in [("direct", direct), *((each.name, each.port) for each in subjects)]:
            calls[name] += (await load.run(port, JSON.request, connections=1, rounds=200)).waits[20:]
            if name != "alone":
                seen = await load.run(port, quick.request, connections=1, rounds=100, chunks=5)
                firsts[name] += seen.first[10:]
    added: dict[str, dict[str, float]] = {}
    for subject in subjects:
        added[subject.name] = _beyond(calls[subject.name], calls["direct"], "call")
        if firsts[subject.name]:
            added[subject.name] |= _beyond(firsts[subject.name], firsts["direct"], "first token")
    return added


def _beyond(times: list[float], direct: list[float], name: str) -> dict[str, float]:
    def at(values: list[float], share: int) -> float:
        return statistics.quantiles(values, n=100)[share - 1] * 1e6

    return {f"{name} p{share}": at(times, share) - at(direct, share) for share in (50, 99)}


async def gaps(subject: Subject) -> float:
    """The 99th percentile of the time between a stream's reads, in milliseconds, when 32 run."""
    seen = await load.run(subject.port, STREAM.request, connections=32, rounds=1, chunks=CHUNKS)
    return statistics.quantiles(seen.gaps, n=100)[98] * 1e3


def best(table: dict[str, dict[str, float]], case: str, subject: str, value: float) -> None:
    row = table.setdefault(case, {})
    row[subject] = min(row.get(subject, value), value)


def ratios(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the budget is about."""
    json_row, stream_row = table[JSON.name], table[STREAM.name]
    found = {
        "json / session": json_row["octet"] / json_row["session"],
        "json / alone": json_row["octet"] / json_row["alone"],
        "stream / session": stream_row["octet"] / stream_row["session"],
    }
    found["json, kept / alone"] = table[KEPT.name]["octet"] / json_row["alone"]
    if KEPT_ANEW.name in table:
        found["json, kept anew / renamed"] = table[KEPT_ANEW.name]["octet"] / table[RENAMED.name]["octet"]
    if "nginx" in stream_row:
        found["stream / nginx"] = stream_row["octet"] / stream_row["nginx"]
    for name in ("stream, renamed", "stream, anthropic", "stream, ollama"):
        if name in table:
            found[f"{name} / stream"] = table[name]["octet"] / stream_row["octet"]
    return {name: round(value, 3) for name, value in found.items()}


def show(title: str, table: dict[str, dict[str, float]], form: Callable[[float], str]) -> None:
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    print(f"\n| {title} | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for case, row in table.items():
        print(f"| {case} | {' | '.join(form(row[name]) if name in row else '-' for name in names)} |")


async def measure(options: argparse.Namespace, shop: Workshop) -> dict[str, object]:
    """All of it; what is printed is also returned."""
    wrk = shutil.which("wrk")
    print(
        f"load: {'wrk for JSON calls, our own client for the rest' if wrk else 'our own client (wrk is not installed)'}"
    )
    subjects = [shop.octet(), shop.reference("alone"), shop.reference("session")]
    at_rest = {each.name: each.resident_bytes() for each in subjects}
    nginx = shop.nginx()
    if nginx is not None:
        subjects.append(nginx)
        at_rest[nginx.name] = nginx.resident_bytes()
    subjects += [shop.peer(name, port) for name, port in options.peer]
    table: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for case in QUICK if options.quick else CASES:
            for subject in subjects[:1] if case.only_octet else subjects:
                if subject.name != "alone" or (not case.chunks and case.size == JSON.size):
                    best(table, case.name, subject.name, await cpu(subject, case, shop.folder))
    found: dict[str, object] = {"ratios": ratios(table), "cpu_microseconds": table}
    show("ratio", {name: {"octet": value} for name, value in ratios(table).items()}, "{:.2f}".format)
    show("CPU per call or stream, us", table, "{:.0f}".format)
    if options.quick:
        return found
    added = await latencies(subjects, shop.upstream_port)
    show("added latency, 1 connection, us", added, "{:.0f}".format)
    streaming = [each for each in subjects if each.name != "alone"]
    between = {each.name: {"p99": await gaps(each)} for each in streaming}
    between["direct"] = {"p99": await gaps(Subject("direct", shop.upstream_port, 0))}
    show("between chunks 20 ms apart, ms", between, "{:.1f}".format)
    memory = {}
    for subject in streaming:
        if subject.process is not None:
            loaded = asyncio.create_task(_loaded(subject))
            memory[subject.name] = {"at rest": at_rest.get(subject.name, 0) / 2**20, "under load": await loaded / 2**20}
            memory[subject.name] |= {"after": subject.resident_bytes() / 2**20, "ready, s": subject.ready_seconds}
    show("resident set, MiB", memory, "{:.2f}".format)
    return found | {"added_microseconds": added, "gap_p99_milliseconds": between, "resident_mib": memory}


async def _loaded(subject: Subject) -> int:
    """The largest resident set seen while 256 streams run."""
    streams = asyncio.create_task(load.run(subject.port, STREAM.request, connections=256, rounds=1, chunks=CHUNKS))
    largest = 0
    while not streams.done():
        largest = max(largest, subject.resident_bytes())
        await asyncio.wait([streams], timeout=0.1)
    await streams
    return largest


def check(found: dict[str, float]) -> int:
    """Compare with the budget; the number of ratios beyond it, or missing."""
    budget = json.loads(BUDGET.read_text())
    beyond = 0
    for name, limit in budget["ratios"].items():
        if name not in found:
            print(f"{name}: NOT MEASURED")
            beyond += 1
            continue
        bound = limit * (1 + budget["tolerance"])
        verdict = "ok" if found[name] <= bound else "BEYOND THE BUDGET"
        beyond += found[name] > bound
        print(f"{name}: {found[name]:.2f}, budget {limit:.2f} (+{budget['tolerance']:.0%}): {verdict}")
    return beyond


def _peer(text: str) -> tuple[str, int]:
    name, _, url = text.partition("=")
    port = urlsplit(url).port
    if not name or port is None:
        raise argparse.ArgumentTypeError("NAME=http://127.0.0.1:PORT")
    return name, port


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", type=_peer, action="append", default=[], metavar="NAME=URL",
                        help="a gateway on this machine, running, that forwards to --upstream-port")  # fmt: skip
    parser.add_argument("--upstream-port", type=int, help="where the mock upstream listens; for peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="CPU of the main cases only")
    parser.add_argument("--check", action="store_true", help="fail when a ratio is beyond budget.json")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Workshop(Path(folder), options.upstream_port) as shop,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(measure(options, shop))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return min(check(found["ratios"]), 1) if options.check else 0  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
