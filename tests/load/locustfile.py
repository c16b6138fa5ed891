"""The scenarios, as Locust runs them: `make load`, or `.tools/bin/locust -f` this file for Locust's own page."""

import csv
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import gevent
import locust.stats
from locust import FastHttpUser, between, events

from tests.load import verdict
from tests.load.answers import StreamSeen, fault_of_completion, fault_of_head, fault_of_health
from tests.load.asking import body
from tests.load.settings import settings_from

SETTINGS = settings_from(os.environ)
PATH = "/v1/chat/completions"
HANG_UP_AFTER = 3  # lines of a stream
CHART_POINTS = 200  # at most; Locust's own rate leaves a short run without any
LOST = (OSError, ValueError, gevent.Timeout)  # geventhttpclient's parse errors are ValueErrors

locust.stats.HISTORY_STATS_INTERVAL_SEC = max(1.0, SETTINGS.seconds / CHART_POINTS)


class Fault(Exception):
    """What was wrong with an answer; Locust groups by how it looks."""

    def __repr__(self) -> str:
        return str(self)


class Arriving(Protocol):
    """What we use of Locust's response, the private half included."""

    _response: Any


def lines(response: Arriving) -> Iterator[bytes]:
    """The lines of a body, each as soon as it is there; FastResponse.iter_lines waits for 1024 bytes instead."""
    while line := response._response.readline(b"\n"):
        yield line


def let_go(response: Arriving) -> None:
    """Close the connection of a body that is not read to its end."""
    response._response.release()


def no_answer(response: Any) -> str:
    """Why there was none; geventhttpclient wraps some reasons and not others."""
    return f"no answer: {getattr(response.error, 'original', response.error)}"


class User(FastHttpUser):  # type: ignore[misc]  # Locust is installed in .tools
    """A user who thinks, asks, and waits for the answer."""

    abstract = True
    insecure = SETTINGS.insecure
    connection_timeout = network_timeout = SETTINGS.timeout_seconds
    default_headers = {"authorization": f"Bearer {SETTINGS.api_key}", "accept-encoding": "identity"}  # noqa: RUF012
    wait_time = between(*SETTINGS.think_seconds)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.client.base_url = str(self.host).rstrip("/").removesuffix("/v1")
        self.chance = random.Random()

    def asking(self, name: str) -> Any:
        """A call of a scenario whose answer is still to come."""
        asked = body(SETTINGS, self.chance, stream=name != "generation")
        return self.client.post(PATH, json=asked, name=name, catch_response=True, stream=name != "generation")

    def head_is_good(self, response: Any, *, known: bool = False) -> bool:
        """Whether there is an answer to read; what is wrong otherwise becomes the call's failure."""
        headers = {name.lower(): value for name, value in (response.headers or {}).items()}
        if response.status_code == 0:
            fault: str | None = no_answer(response)
        else:
            content = b"" if response.status_code == 200 else response.content or b""
            fault = fault_of_head(response.status_code, headers, content)
            lost = response.request_meta["exception"] if response.status_code == 200 else None
            fault = f"connection lost: {lost}" if lost else None if known and response.status_code == 200 else fault
        if fault:
            response.failure(Fault(fault))
        return not fault


def generate(user: User) -> None:
    """A JSON call."""
    with user.asking("generation") as response:
        if user.head_is_good(response) and (fault := fault_of_completion(response.content)):
            response.failure(Fault(fault))


def stream(user: User) -> None:
    """A stream, read to its end."""
    began = time.perf_counter()
    seen = StreamSeen(began)
    with user.asking("streaming") as response:
        if response.status_code != 200:
            user.head_is_good(response)
            return
        try:
            for line in lines(response):
                seen.feed(line, now := time.perf_counter())
                if now - began > SETTINGS.timeout_seconds:
                    seen.broke(f"longer than {SETTINGS.timeout_seconds:g} s")
                    let_go(response)
                    break
        except LOST as error:
            seen.broke(f"connection lost: {error}")
        response.request_meta |= {"response_time": (time.perf_counter() - began) * 1000, "response_length": seen.size}
        if user.head_is_good(response, known=seen.known) and (fault := seen.fault()):
            response.failure(Fault(fault))
            user.client.client.clientpool.close()  # the server ends such a connection, and the next call needs one
    note(user, seen, began)


def note(user: User, seen: StreamSeen, began: float) -> None:
    """Count a stream's times beside the calls: they are lines of their own, and not part of the total."""
    entries = user.environment.stats.entries
    if seen.first is not None:
        entries[verdict.FIRST_TOKEN, "stream"].log((seen.first - began) * 1000, 0)
    if seen.gaps:
        entries[verdict.LONGEST_GAP, "stream"].log(max(seen.gaps) * 1000, 0)
    for gap in seen.gaps:
        entries[verdict.GAP, "stream"].log(gap * 1000, 0)
    if seen.per_second is not None:
        entries[verdict.TOKENS_PER_SECOND, "stream"].log(seen.per_second, 0)


def hang_up(user: User) -> None:
    """A stream that its caller leaves in the middle."""
    with user.asking("hangup") as response:
        if not user.head_is_good(response):
            return
        try:
            for _ in zip(range(HANG_UP_AFTER), lines(response), strict=False):
                pass
        except LOST as error:
            response.failure(Fault(f"connection lost: {error}"))
        let_go(response)


def probe(user: User) -> None:
    """A health check."""
    with user.client.get(user.chance.choice(("/healthz", "/readyz")), name="health", catch_response=True) as response:
        headers = {name.lower(): value for name, value in (response.headers or {}).items()}
        fault = fault_of_health(response.status_code, headers)
        if response.status_code == 0:
            response.failure(Fault(no_answer(response)))
        elif fault:
            response.failure(Fault(fault))


class Generation(User):
    weight = SETTINGS.weights["generation"]
    abstract = not weight
    tasks = [generate]  # noqa: RUF012


class Streaming(User):
    weight = SETTINGS.weights["streaming"]
    abstract = not weight
    tasks = [stream]  # noqa: RUF012


class Health(User):
    weight = SETTINGS.weights["health"]
    abstract = not weight
    tasks = [probe]  # noqa: RUF012


class HangUp(User):
    weight = SETTINGS.weights["hangup"]
    abstract = not weight
    tasks = [hang_up]  # noqa: RUF012


class Judge:
    """Ends the run after so many calls, and says at its end what held."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._calls = 0
        self._told: list[str] = []
        environment.events.request.add_listener(self.count)
        environment.events.quitting.add_listener(self.judge)
        environment.events.quit.add_listener(self.tell)

    def count(self, **_: object) -> None:
        self._calls += 1
        if self._calls == SETTINGS.calls:
            gevent.spawn(self._environment.runner.quit)

    def judge(self, **_: object) -> None:
        stats = self._environment.stats
        figures = {
            name: verdict.Figures(
                each.num_requests, each.num_failures, each.max_response_time, each.get_response_time_percentile(0.95)
            )
            for (name, _), each in stats.entries.items()
        }
        faults = Counter[tuple[str, str]]()
        for each in stats.errors.values():
            faults[each.name, each.parse_error(each.error)] += each.occurrences
        crashes = [str(each["msg"]) for each in self._environment.runner.exceptions.values()]
        checks = verdict.judge(figures, faults, crashes, SETTINGS)
        self._told = list(verdict.told(checks, faults))
        self._environment.process_exit_code = 0 if all(check.held for check in checks) else 1

    def tell(self, **_: object) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in self._told))
        sys.stdout.flush()
        tables = locust.stats.StatsCSV(self._environment, locust.stats.PERCENTILES_TO_REPORT)
        SETTINGS.report.mkdir(parents=True, exist_ok=True)
        for name, write in (("figures", tables.requests_csv), ("failures", tables.failures_csv)):
            with (SETTINGS.report / f"{name}.csv").open("w", newline="") as file:
                write(csv.writer(file))  # Locust's own --csv lacks the last second


def start(environment: Any, **_: object) -> None:
    if not environment.parsed_options or not environment.parsed_options.worker:
        Judge(environment)


events.init.add_listener(start)
