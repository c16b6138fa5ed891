"""The account complains of what it should, and a short run of real faults leaves nothing unexplained."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError, source
from proxy.config.load import build
from proxy.providers import traits
from tests.chaos.account import judge, told
from tests.chaos.faults import FAULTS
from tests.chaos.nouns import Ask, Call, Execution, Life, Story, Window
from tests.chaos.play import Play
from tests.chaos.rest import Footprint, books, left
from tests.chaos.settings import BROKEN, DIALECTS, ECHOES, configuration
from tests.chaos.stage import Stage

ASK = Ask(nonce="n1", tenant="red", model="plain-1", question="n1", tokens=3, stream=True)
HEAD = "<red/n1|echo-a.1.1|n1>"
BOOKS = {
    "octet_calls_total": {'route="plain",outcome="ok"': 1.0},
    "octet_access_lines_lost_total": {"": 0.0},
    "octet_cost_usd_total": {'route="plain"': 0.25},
    "octet_redis_up": {"": 1.0},
    "octet_config_last_reload_successful": {"": 1.0},
    "octet_slots_in_use": {'name="red"': 0.0},
}


def line(**changes: Any) -> dict[str, Any]:
    """An access line of the call."""
    return {
        "request_id": "n1", "caller": "red", "upstream": "echo-a", "status": 200, "outcome": "ok", "reason": None,
        "attempts": 1, "cache": "bypass", "completion_tokens": 5, "cost_usd": 0.25, "ended": 11.0, **changes,
    }  # fmt: skip


def story(**changes: Any) -> Story:
    """A call that was answered whole, and all that is known of it; `changes` are the call's."""
    call = Call(
        ask=ASK, sidecar="sidecar-0", sent=10.0, ended=11.0, how="whole", status=200, request_id="n1", cache="bypass",
        attempts=1, upstream="echo-a", text=f"{HEAD} 0 1 2 end", completion_tokens=5,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(call, name, value)
    life = Life("sidecar-0", 1, 0.0, exit_code=0, lines=[line()])
    return Story([call], [], [life], [Execution("echo-a", "echo-a.1.1", "red/n1", 10.1, 10.9, "whole")])


def failed(code: str = "upstream_error", *windows: Window) -> Story:
    """The call has failed with a 502 while these faults were in force."""
    made = story(how="failed", status=502, code=code, text="", attempts=2)
    made.windows += windows
    made.lives[0].lines = [line(outcome="upstream_error", status=502, attempts=2)]
    return made


BOTH = Window("upstream", "both are killed", ("echo-a", "echo-b"), 9.0, 12.0)
ONE = Window("upstream", "echo-a is killed", ("echo-a",), 9.0, 12.0)


@pytest.mark.parametrize("good", [story(), failed("upstream_error", BOTH)])
def test_what_is_explained_is_not_complained_of(good: Story) -> None:
    """A whole answer of its own, and a failure while no target could answer."""
    account = judge(good)
    assert account.good, account.complaints
    assert "unexplained: 0" in list(told(account))


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (story(text="<red/n2|echo-a.1.1|n1> 0 1 2 end"), "made for red/n2"),
        (story(text="<blue/n1|echo-a.1.1|n1> 0 1 2 end"), "made for blue/n1"),
        (story(text="<red/n1|echo-a.1.1|n9> 0 1 2 end"), "this answers n9"),
        (story(text="<red/n1|echo-a.1.9|n1> 0 1 2 end"), "no upstream has made"),
        (story(text=f"{HEAD} 0 2 end"), "is not"),
        (story(text=f"{HEAD} 0 1 1 2 end"), "is not"),
        (story(text=f"{HEAD} 0 1 2"), "is not"),
        (story(how="left", text=f"{HEAD} 0 0"), "never meant to hang up"),
        (story(how="hung"), "has no end"),
        (story(how="wrong"), "no answer"),
        (story(how="cut"), "was not killed then"),
        (story(how="refused"), "the sidecar was there"),
        (story(request_id="n2"), "has the id"),
        (story(attempts=2), "2 attempts, and the line says 1"),
        (story(completion_tokens=4), "4 tokens"),
        (failed(), "no fault was in force"),
        (failed("upstream_error", ONE), "no fault was in force"),
        (failed("no_such_code", BOTH), "not what an upstream's fault looks like"),
    ],
)
def test_a_call_that_is_not_explained_is_complained_of(bad: Story, word: str) -> None:
    """Another's answer, a chunk too few or twice, an end without a reason."""
    assert any(word in each.text for each in judge(bad).complaints), judge(bad).complaints


def _with(change: Callable[[Story], object]) -> Story:
    made = story()
    change(made)
    return made


SHARED = Call(
    ask=Ask(nonce="n2", tenant="blue", model="plain-1", question="n1"), sidecar="sidecar-0", sent=10.0, ended=11.0,
    how="whole", status=200, request_id="n2", cache="memory", text=f"{HEAD} 0 1 2 end",
)  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (_with(lambda made: made.lives[0].lines.clear()), "there is no line"),
        (_with(lambda made: made.lives[0].lines.append(line())), "has 2 lines"),
        (_with(lambda made: made.lives[0].lines.append(line(request_id="n7"))), "nobody has made this call"),
        (_with(lambda made: made.lives[0].lines[0].update(outcome="cut")), "the line says cut"),
        (_with(lambda made: made.lives[0].lines[0].update(outcome="proxy_error")), "proxy_error"),
        (_with(lambda made: made.lives[0].lines[0].update(caller="blue")), "the line says blue"),
        (_with(lambda made: setattr(made.lives[0], "told", "Traceback (most recent call last)")), "a traceback"),
        (_with(lambda made: made.executions.append(made.executions[0])), "upstreams were asked 2 times"),
        (_with(lambda made: made.executions.append(Execution("echo-a", "s", "red/n7", 10.0))), "asked for red/n7"),
        (_with(lambda made: made.calls.append(SHARED)), "went to several tenants"),
    ],
)
def test_books_that_do_not_agree_are_complained_of(bad: Story, word: str) -> None:
    """Lines that are missing, twice or others'; answers made twice, or given to another tenant."""
    assert any(word in each.text for each in judge(bad).complaints), judge(bad).complaints


def test_what_is_left_is_complained_of() -> None:
    """A socket, a place, a Redis that is not there, and counters that are not the sums of the lines."""
    base, life = Footprint(20, 0, Counter({"redis": 2})), Life("s", 1, 0.0, lines=[line()])
    assert not [*left("s", BOOKS, base, base, {"redis"}), *books(life, BOOKS)]
    more = Footprint(30, 0, Counter({"redis": 2, "an upstream": 1}))
    wrong = {**BOOKS, "octet_slots_in_use": {'name="red"': 1.0}, "octet_redis_up": {"": 0.0}}
    texts = " ".join(each.text for each in left("s", wrong, more, base, {"redis"}))
    assert all(word in texts for word in ("an upstream", "28 descriptors", "octet_slots_in_use", "octet_redis_up"))
    assert [each.about for each in books(Life("s", 1, 0.0), BOOKS)] == ["books", "books"]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("edit", range(4))
def test_a_spoilt_file_is_refused(name: str, edit: int) -> None:
    """What is meant to be no configuration is none, and what is edited is one."""
    urls = dict.fromkeys((*ECHOES, *DIALECTS), "http://127.0.0.1:1/v1")
    text = configuration(urls, "redis://127.0.0.1:1/0", edit)
    assert build(source.read(text.encode(), "file", {}), traits()).upstreams["echo-b"].labels == {"edit": str(edit)}
    with pytest.raises(ConfigError):
        build(source.read(BROKEN[name](text).encode(), "file", {}), traits())


SHORT = (
    "echo-a is killed", "the wire resets connections", "both echoes cut their streams", "claude answers 529",
    "Redis is killed", "Redis is flushed", "the configuration is edited", "the configuration is spoilt, and mended",
    "sidecar-1 is killed", "sidecar-2 is stopped, and drains",
)  # fmt: skip


@pytest.mark.timeout(180)  # it starts and ends eleven processes
async def test_a_short_run_is_accounted_for(tmp_path: Path) -> None:
    """One fault after another, each with calls in flight when it comes and calls made while it lasts."""
    chance = random.Random(4)
    async with Stage(tmp_path) as stage:
        play = Play(stage, chance, list[str]().append)
        await play.begin()

        async def calls() -> None:
            tasks = [play.callers.send(ask) for _ in range(8) for ask in play.callers.some()]
            await asyncio.wait(tasks)

        for fault in (each for name in SHORT for each in FAULTS if each.name == name):
            before = asyncio.create_task(calls())
            await play.under(fault, calls)
            await before
        account = await play.finish()
    assert account.good, "\n".join(told(account))
    assert sum(account.rows.values()) > 200
