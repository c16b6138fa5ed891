"""The compose stack, brought up as documented."""

import json
import os
import re
import signal
import time
from itertools import islice

from deploy.image.verify import image
from deploy.image.verify.engine import Engine
from deploy.image.verify.report import Report, eventually, say
from deploy.image.verify.stack import Stack
from deploy.image.verify.standins import SERVICES, make_service

FILE = image.ROOT / "deploy/compose/compose.yaml"
PROJECT = "octet-verify"
NOT_TO_BE_HAD = {"grafana"}  # without a registry: no package of Debian's holds it
PROMETHEUS = "http://127.0.0.1:9090/api/v1"
ANSWER = re.compile(r"[\w.-]+( \(streamed\))?: \D")  # a failure begins with its status
TOKENS, PACE = 80, 0.1
SLOW = {"dialect": "openai", "tokens": TOKENS, "token_seconds": PACE}
SCRIPT = f"""import json, urllib.request as r
ask = r.Request("http://127.0.0.1:8082/_simulator/behaviour", json.dumps({SLOW!r}).encode(), method="PUT")
r.urlopen(ask)
"""


def verify(wanted: image.Wanted) -> int:
    """Build, bring up, look, stop in the middle of a stream, take down; returns the exit code."""
    report = Report()
    with Engine(wanted.directory, apart=False) as engine:
        seconds = image.build(engine, wanted)
        say(f"      {image.IMAGE} is built, {seconds:.0f} s")
        stack = Stack(engine, FILE, PROJECT)
        for name in SERVICES if engine.ours else ():
            make_service(engine, name, stack.image(name))
    with Engine(wanted.directory, apart=True) as engine:
        stack = Stack(engine, FILE, PROJECT)
        left_out = NOT_TO_BE_HAD if engine.ours else set()
        if left_out:
            say(f"      no registry: without {', '.join(sorted(left_out))}")
        try:
            check_stack(report, engine, stack, sorted(stack.settings["services"].keys() - left_out))
        finally:
            stack.compose("down", "--volumes", "--timeout", "40")
        report.equal("down --volumes leaves nothing", stack.left(), [])
    return report.end()


def check_stack(report: Report, engine: Engine, stack: Stack, services: list[str]) -> None:
    """From `up` to `stop`."""
    began = time.monotonic()
    pull = ("--pull", "never") if engine.ours else ()
    stack.compose("up", "--detach", "--wait", "--no-build", *pull, *services)
    report.check("up --wait comes back", True, f"{time.monotonic() - began:.1f} s")
    report.equal("every service is healthy", stack.health(), dict.fromkeys(services, "healthy"))
    check_callers(report, stack)
    check_monitoring(report, stack)
    if engine.ours:  # else the process may be on another machine
        check_crash(report, stack)
    check_stop(report, stack)


def check_callers(report: Report, stack: Stack) -> None:
    """The application is answered over loopback; the machine over the published port; and Redis keeps answers."""
    states = stack.states()
    report.equal(
        "the application is in the sidecar's network",
        states["app"]["HostConfig"]["NetworkMode"], f"container:{states['octet']['Id']}",
    )  # fmt: skip
    answered = eventually(lambda: answers(stack) >= 12)
    said = stack.said("app")
    strange = [each for each in said if not ANSWER.match(each)]
    report.check("the application is answered", answered and not strange, strange or f"{len(said)} times")
    streamed = sum("(streamed)" in each for each in said)
    report.check("in streams and in one piece", 0 < streamed < len(said), f"{streamed} of {len(said)} were streams")
    status, body = stack.fetch("http://127.0.0.1:8080/v1/models")
    report.check("callers on this machine are answered", status == 200 and "vllm/" in body, status)
    status, body = stack.fetch("http://127.0.0.1:8081/metrics")
    report.check("so is who asks for metrics", status == 200 and "octet_calls_total{" in body, status)
    status, _ = stack.fetch("http://127.0.0.1:8081/admin/config")
    report.check("but not who asks for more, from outside the container", status in (401, 403, 404), status)
    kept = int(stack.inside("redis", "redis-cli", "-n", "1", "dbsize").split()[-1])
    report.check("Redis keeps answers", kept > 0, kept)


def check_monitoring(report: Report, stack: Stack) -> None:
    """Prometheus has its targets, its rules and Alertmanager."""

    def targets() -> dict[str, str]:
        return {
            each["labels"]["job"]: each["health"]
            for each in stack.ask(f"{PROMETHEUS}/targets").get("activeTargets", ())
        }

    def rules() -> list[str]:
        groups = stack.ask(f"{PROMETHEUS}/rules").get("groups", ())
        return [rule["health"] for group in groups for rule in group["rules"]]

    up = {"octet": "up", "prometheus": "up"}
    eventually(lambda: targets() == up)
    report.equal("Prometheus scrapes", targets(), up)
    files = (image.ROOT / "deploy/prometheus/rules").glob("*.yml")
    written = sum(len(re.findall(r"^ *- (?:alert|record):", file.read_text(), re.MULTILINE)) for file in files)
    eventually(lambda: set(rules()) == {"ok"}, patience=240)  # some every two minutes only
    report.equal("every rule is loaded and has been evaluated", (len(rules()), set(rules())), (written, {"ok"}))
    managers = stack.ask(f"{PROMETHEUS}/alertmanagers").get("activeAlertmanagers", ())
    report.check(
        "Prometheus knows Alertmanager",
        [each["url"] for each in managers] == ["http://alertmanager:9093/api/v2/alerts"],
    )
    status, body = stack.fetch("http://127.0.0.1:9093/api/v2/status")
    report.check("Alertmanager has its configuration", status == 200 and "octet/on-call" in body, status)
    counted = stack.ask(f"{PROMETHEUS}/query?query=sum(octet_calls_total)").get("result", ())
    report.check(
        "Prometheus has counted calls",
        counted and float(counted[0]["value"][1]) > 0,
        counted[0]["value"][1] if counted else "",
    )


def check_crash(report: Report, stack: Stack) -> None:
    """A sidecar that dies is back, and the application beside it."""
    os.kill(stack.states()["octet"]["State"]["Pid"], signal.SIGKILL)
    began = time.monotonic()

    def is_back() -> bool:
        states = stack.states()
        begun = states["app"]["State"]["StartedAt"] > states["octet"]["State"]["StartedAt"]
        return states["octet"]["RestartCount"] == 1 and begun and set(stack.health().values()) == {"healthy"}

    report.check(
        "a sidecar that is killed comes back, and the application to it",
        eventually(is_back),
        f"{time.monotonic() - began:.1f} s",
    )
    before = answers(stack)
    report.check("which is answered again", eventually(lambda: answers(stack) > before))


def answers(stack: Stack) -> int:
    """How often the application says that it was answered."""
    return sum(ANSWER.match(each) is not None for each in stack.said("app"))


def check_stop(report: Report, stack: Stack) -> None:
    """`stop` lets the stream that is on its way run to its end."""
    stack.inside("upstreams", "python", "-c", SCRIPT)
    with stack.stream(8080) as lines:
        report.equal("a stream begins", next(lines, ""), "status 200 openai")
        first = list(islice(lines, 5))
        began = time.monotonic()
        stack.compose("stop")
        seconds = time.monotonic() - began
        data = [*first, *lines]
    report.equal("the stream that stop met ran to its [DONE]", data[-2:], ["data: [DONE]", "end"])
    said = "".join(word_of(each) for each in data)
    report.check(
        "no word of it is missing",
        len(said.split()) == TOKENS,
        f"{len(said.split())} of {TOKENS}, stop took {seconds:.1f} s",
    )
    codes = {name: state["State"]["ExitCode"] for name, state in stack.states().items()}
    ended = {name: codes[name] for name in ("app", "octet", "upstreams")}
    report.equal("what is ours ended by itself", ended, dict.fromkeys(ended, 0))


def word_of(line: str) -> str:
    """What an event of a stream says."""
    if not line.startswith("data: {"):
        return ""
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"])
