"""`make load` and `make soak`: start what is needed, have Locust ask it, say what held.

Exit code: 0, all held; 1, something did not; 2, it could not be begun.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.load import chart, programs, samples
from tests.load.settings import PREFIX, VARIABLES, SettingsError, settings_from
from tests.load.verdict import Check

EVERY_SECONDS = 5.0
REST_SECONDS = 30.0  # idle connections to upstreams are closed after 4
WARM_UP = 0.2  # of the run
MOST_MIB_PER_HOUR = 10.0
SOAK_CONFIG = Path(__file__).with_name("soak.yaml")
SOAK = {
    "users": "24",
    "weights": "generation=4,streaming=4,hangup=3,health=1",
    "think_seconds": "0.2-2",
    "repeated": "0.3",
}
SOAK_MODELS = (
    "gpt-4o-mini,claude-haiku-4-5,spread,failover,hedged,mirrored,ollama/qwen3,tgi/tgi,bentoml/m,huggingface/m"
)


def main(arguments: Sequence[str]) -> int:
    """Run a load, or a soak."""
    options = _parser().parse_args(arguments)
    if options.soak and bool(options.host) != bool(options.admin):
        _parser().error("a soak of your own sidecar needs both: --host and --admin")
    try:
        settings = _settings(options)
        report = Path(settings["report"]).absolute()
        report.mkdir(parents=True, exist_ok=True)
        settings["report"] = str(report)
        code = _soak(options, settings, report) if options.soak else _load(options.host, settings, report)
    except (SettingsError, programs.StartError) as error:
        _say(f"octet load: {error}")
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="A load of many users, judged.")
    parser.add_argument("soak", nargs="?", choices=["soak"], help="for long, and the sidecar's process is watched")
    parser.add_argument("--host", help="a sidecar that runs already; default: one is started")
    parser.add_argument("--admin", help="soak: its admin side, e.g. http://127.0.0.1:8081")
    parser.add_argument("--minutes", type=float, default=30.0, help="soak: how long (30)")
    parser.add_argument("--rest", type=float, default=REST_SECONDS, help="soak: seconds to wait for the rest (30)")
    parser.add_argument(
        "--slope",
        type=float,
        default=MOST_MIB_PER_HOUR,
        help=f"soak: MiB an hour that are allowed ({MOST_MIB_PER_HOUR:g})",
    )
    return parser


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """Every setting as text: the environment's, the soak's, the default."""
    ours = dict(SOAK, seconds=str(options.minutes * 60)) if options.soak else {}
    if options.soak and not options.host:
        ours["models"] = SOAK_MODELS
    texts = {
        name: os.environ.get(f"{PREFIX}{name.upper()}") or ours.get(name, each.default)
        for name, each in VARIABLES.items()
    }
    given = {f"{PREFIX}{name.upper()}": text for name, text in texts.items()}
    settings_from({**os.environ, **given})
    return texts


def _load(host: str | None, settings: dict[str, str], report: Path) -> int:
    with contextlib.ExitStack() as stack:
        if host is None:
            host = programs.host_of(stack.enter_context(programs.demo(report)))
        code = _waited(stack.enter_context(programs.locust(host, settings, report)))
    _say(f"report: {report / 'report.html'}")
    return code


def _soak(options: argparse.Namespace, settings: dict[str, str], report: Path) -> int:
    warm_up = options.minutes * 60 * WARM_UP
    with _watched(options, report) as (host, looking):
        began = time.monotonic()
        seen = [_at_rest(looking, began, options.rest)]
        with programs.locust(host, settings, report) as running:
            with contextlib.suppress(KeyboardInterrupt):
                while not _ended(running, EVERY_SECONDS):
                    seen.append(looking.look(time.monotonic() - began))
            code = _waited(running)
        rested = _at_rest(looking, began, options.rest, seen[0])
    checks = list(samples.judge(seen, rested, warm_up, options.slope))
    if code:
        checks.append(Check(False, f"the load itself: Locust's exit code is {code}"))
    told = [*samples.account(seen, rested), *map(str, checks)]
    chart.write_table([*seen, rested], report / "soak.csv")
    chart.write_page([*seen, rested], told, warm_up, report / "soak.html")
    _say(*told, f"report: {report / 'report.html'}", f"charts: {report / 'soak.html'}")
    return 0 if all(check.held for check in checks) else 1


@contextlib.contextmanager
def _watched(options: argparse.Namespace, report: Path) -> Iterator[tuple[str, samples.Looking]]:
    """A sidecar to be watched, ours or somebody's."""
    if options.host:
        yield options.host, samples.Looking(options.admin.rstrip("/"))
        return
    tasks = report / "tasks"
    tasks.unlink(missing_ok=True)
    with programs.simulator(report) as upstreams:
        url = upstreams.said(r"(http://\S+)/openai/v1")
        with programs.sidecar(report, SOAK_CONFIG, url, tasks) as octet:
            host, admin = programs.host_of(octet), programs.admin_of(octet)
            yield host, samples.Looking(admin, octet.pid, tasks)


def _at_rest(
    looking: samples.Looking, began: float, patience: float, before: samples.Sample | None = None
) -> samples.Sample:
    """A look when nothing is left of the start or of the load, or when there was time enough for that."""
    until = time.monotonic() + patience
    while True:
        found = looking.look(time.monotonic() - began)
        busy = samples.left(before, found) if before else any(found.gauges.values()) or not looking.is_complete()
        if not busy or time.monotonic() > until:
            return found
        time.sleep(1)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return True
    return False


def _waited(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; Ctrl-C reaches it too, and it still writes its report."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def _leave(number: int, _: object) -> None:
    """End by a signal, and with us what we have started."""
    sys.exit(128 + number)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _leave)
    sys.exit(main(sys.argv[1:]))
