"""The image at work: bounded as an orchestrator would bound it, with a simulated upstream beside it."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from deploy.image.verify.engine import Engine
from deploy.image.verify.report import Report, eventually

INSIDE = (Path(__file__).parent / "inside.py").read_text()
UPSTREAM, SIDECAR, CALLER = "octet-verify-upstream", "octet-verify-sidecar", "octet-verify-caller"
MEMORY = 256 * 1024 * 1024
HARDENED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "64",
    "--memory", str(MEMORY), "--health-interval", "1s",
)  # fmt: skip
HEALTH = "Health.Status"
TOKENS, PACE = 60, 0.1  # of the stream that SIGTERM meets: six seconds
CONFIG = f"""upstreams:
  simulated:
    provider: openai
    base_url: http://127.0.0.1:8082/openai/v1
    api_key_file: /run/secrets/octet/simulated
    headers: {{x-simulate: tokens={TOKENS}}}
routes: [{{targets: [{{upstream: simulated}}]}}]
"""


def check_running(report: Report, engine: Engine, image: str, command: Sequence[str], directory: Path) -> None:
    """Start it, look at it from inside, stop it in the middle of a stream."""
    with tempfile.TemporaryDirectory(dir=directory if engine.ours else None) as place, upstream(engine, image):
        mounts = mounted(Path(place), CONFIG)
        began = time.monotonic()
        with container(engine, SIDECAR, *HARDENED, *mounts, "--network", f"container:{UPSTREAM}", image):
            ready = eventually(lambda: healthcheck(engine) == 0)
            report.check("it is ready", ready, f"{time.monotonic() - began:.1f} s after docker run")
            check_inside(report, engine, ["/opt/venv/bin/python", "/opt/venv/bin/octet", *command])
            check_health(report, engine)
            check_drain(report, engine, image)
        check_mistakes(report, engine, image, Path(place))
        options = (*HARDENED, *mounts, "--network", f"container:{UPSTREAM}", "--user", "1234567:0")
        with container(engine, SIDECAR, *options, image):
            report.check("any other user can run it too", eventually(lambda: healthcheck(engine) == 0), "1234567:0")


def check_inside(report: Report, engine: Engine, command: Sequence[str]) -> None:
    """What the kernel lets it do."""
    found = json.loads(python(engine, "facts"))
    report.equal("it is process 1", found["command"], list(command))
    report.equal("it is user and group 10001", (set(found["Uid"]), set(found["Gid"])), ({"10001"}, {"10001"}))
    capabilities = [int(found[name][0], 16) for name in ("CapEff", "CapPrm", "CapBnd")]
    report.equal("it has no capability and can get none", capabilities, [0, 0, 0])
    report.equal("it can gain no privileges", found["NoNewPrivs"], ["1"])
    report.equal("its system calls are filtered", found["Seccomp"], ["2"])
    report.equal("its memory is bounded", found["memory"], [str(MEMORY)])
    report.equal("it can write nowhere but to /dev/shm", found["written"], ["/dev/shm"])  # noqa: S108
    listening = {"127.0.0.1:8080", "0.0.0.0:8081"}
    report.equal(
        "callers reach it on loopback, probes everywhere", set(found["listening"]) - {"127.0.0.1:8082"}, listening
    )
    loaded, others = json.loads(python(engine, "imports"))
    report.check("every compiled module can be loaded", loaded and not others, f"{loaded}" if loaded else others)


def check_health(report: Report, engine: Engine) -> None:
    """The health check says yes and no."""
    report.check(
        "the engine finds it healthy", eventually(lambda: state(engine, HEALTH) == "healthy"), state(engine, HEALTH)
    )
    report.equal("the health check fails where nobody listens", healthcheck(engine, "--admin", "127.0.0.1:9"), 1)


def check_drain(report: Report, engine: Engine, image: str) -> None:
    """SIGTERM lets the stream that is on its way run to its end."""
    with caller(engine, image) as lines:
        report.equal("a stream begins", next(lines, ""), "status 200 simulated")
        before = list(islice(lines, 5))
        told = time.monotonic()
        engine.run("kill", "--signal", "TERM", SIDECAR)
        unready = eventually(lambda: healthcheck(engine) == 1, patience=TOKENS * PACE / 2)
        report.check("while it drains it is not ready", unready)
        after = list(lines)
        code = engine.ask("wait", SIDECAR)
        seconds = time.monotonic() - told
    data = [*before, *after]
    report.equal("the stream that SIGTERM met ran to its [DONE]", data[-2:], ["data: [DONE]", "end"])
    pieces = sum('"content"' in each for each in data)
    report.check(
        "no piece of it is missing", pieces >= TOKENS, f"{pieces} of {TOKENS}, {len(after)} events after SIGTERM"
    )
    report.equal("then it ended, exit code", code, "0")
    report.check(
        "and that took no longer than the stream", seconds < 3 * TOKENS * PACE, f"{seconds:.1f} s after SIGTERM"
    )


def check_mistakes(report: Report, engine: Engine, image: str, place: Path) -> None:
    """A configuration that is wrong or missing ends it, and it says why."""
    wrong = place / "wrong"
    wrong.mkdir(mode=0o755)
    (wrong / "octet.yaml").write_text("upstreams:\n  a: {provider: antropic}\nroutes: [{targets: [{upstream: a}]}]\n")
    for what, options, mistake in (
        ("wrong", ("-v", f"{wrong}:/etc/octet:ro"), "antropic"),
        ("missing", (), "/etc/octet/octet.yaml"),
    ):
        with container(engine, SIDECAR, "--network", "none", *HARDENED, *options, image):
            eventually(lambda: state(engine, "Status") == "exited")
            code, said = state(engine, "ExitCode"), engine.run("logs", SIDECAR)
        told = f"{said.stdout}{said.stderr}".strip()
        report.check(f"a {what} configuration is exit 2 and named", code == "2" and mistake in told, f"{code} {told}")


def mounted(place: Path, config: str) -> tuple[str, ...]:
    """Options that put a configuration and its secret where an orchestrator puts them."""
    place.chmod(0o755)
    for folder, name, text in (("config", "octet.yaml", config), ("secrets", "simulated", "demo")):
        (place / folder).mkdir(mode=0o755)
        (place / folder / name).write_text(text)
        (place / folder / name).chmod(0o444)
    return "-v", f"{place / 'config'}:/etc/octet:ro", "-v", f"{place / 'secrets'}:/run/secrets/octet:ro"


@contextmanager
def container(engine: Engine, name: str, *arguments: str) -> Iterator[None]:
    """A container that runs for a while; what it said is told if the verification breaks off."""
    engine.remove(name)
    engine.run("run", "--detach", "--name", name, *arguments)
    try:
        yield
    finally:
        engine.remove(name)


@contextmanager
def upstream(engine: Engine, image: str) -> Iterator[None]:
    """Simulated upstreams in a network namespace that knows nothing but loopback."""
    simulate = ("simulate", "--listen", "127.0.0.1:8082", "--pace", str(PACE))
    with container(engine, UPSTREAM, "--network", "none", "--no-healthcheck", image, *simulate):
        yield


@contextmanager
def caller(engine: Engine, image: str) -> Iterator[Iterator[str]]:
    """Somebody in the sidecar's network namespace who asks for a stream; yields the lines that arrive."""
    network = ("--network", f"container:{UPSTREAM}", "--no-healthcheck", "--entrypoint", "python")
    asking = (image, "-c", INSIDE, "stream", "127.0.0.1", "8080")
    with engine.begin("run", "--rm", "--name", CALLER, *network, *asking) as printed:
        try:
            yield map(told_in, printed)
        finally:
            engine.remove(CALLER)


def told_in(line: bytes) -> str:
    """What inside.py tells in a line, without the time."""
    return line.decode().strip().partition(" ")[2]


def python(engine: Engine, *arguments: str) -> Any:
    """What a part of inside.py tells from within the sidecar's container."""
    return engine.ask("exec", SIDECAR, "python", "-c", INSIDE, *arguments).split(" ", 1)[1]


def healthcheck(engine: Engine, *arguments: str) -> int:
    """The exit code of the health check, run as the engine would."""
    done: subprocess.CompletedProcess[str] = engine.run(
        "exec", SIDECAR, "octet", "healthcheck", *arguments, check=False
    )
    return done.returncode


def state(engine: Engine, name: str) -> str:
    """What the engine says of the sidecar's container."""
    return engine.ask("inspect", "--format", f"{{{{.State.{name}}}}}", SIDECAR)
