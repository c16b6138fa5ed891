"""The load: callers of two and more tenants, patient and impatient, who ask the same and other things."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import aiohttp

from tests.chaos.nouns import Ask, Call
from tests.chaos.reading import Left, read
from tests.chaos.settings import DIALECTS, ROUTES, TENANTS

WATCHDOG_SECONDS = 30.0  # far above every time-out: what has not ended then never will
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SECONDS_OF_A_QUESTION = 5  # then the callers of the cached route ask something else
_QUESTIONS = 6  # at a time


class Callers:
    """Make calls, and keep what became of each.

    Args:
        addresses: of the sidecars, by their names.
    """

    def __init__(self, addresses: dict[str, str], chance: random.Random) -> None:
        self.calls: list[Call] = []
        self._addresses = addresses
        self._chance = chance
        self._numbers = count()
        self._run = "".join(chance.choices(_LETTERS, k=5))
        self._tasks: set[asyncio.Task[Call]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def send(self, ask: Ask, sidecar: str = "") -> "asyncio.Task[Call]":
        """Begin a call, at any of the sidecars unless one is named."""
        call = Call(ask=ask, sidecar=sidecar or self._chance.choice(list(self._addresses)), sent=0.0)
        self.calls.append(call)
        task = asyncio.get_running_loop().create_task(self._make(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ended(self) -> None:
        """Until every call has its end; that of those who have none is the watchdog's."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def load(self, rate: float, until: Callable[[], bool]) -> None:
        """So many calls a second, whatever becomes of them."""
        began, sent = time.monotonic(), 0
        while not until():
            for ask in self.some():
                self.send(ask)
                sent += 1
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))

    async def _make(self, call: Call) -> Call:
        call.sent = time.time()
        try:
            async with asyncio.timeout(WATCHDOG_SECONDS) as watchdog:
                await self._until_left(call)
        except Left:
            call.how = "left"
        except aiohttp.ClientConnectorError as error:
            call.how, call.detail = "refused", str(error)
        except TimeoutError:
            call.how = "hung" if watchdog.expired() else "cut"
        except (aiohttp.ClientError, OSError) as error:
            call.how, call.detail = "cut", f"{type(error).__name__}: {error}"
        except (ValueError, KeyError, TypeError) as error:
            call.how, call.detail = "wrong", f"{type(error).__name__}: {error}"
        call.ended = time.time()
        return call

    async def _until_left(self, call: Call) -> None:
        if call.ask.leave_seconds is None:
            await self._exchange(call)
            return
        try:
            async with asyncio.timeout(call.ask.leave_seconds) as patience:
                await self._exchange(call)
        except TimeoutError:
            if patience.expired():
                raise Left from None
            raise

    async def _exchange(self, call: Call) -> None:
        ask = call.ask
        assert self._session is not None
        headers = {"authorization": f"Bearer {TENANTS[ask.tenant]}", "x-request-id": ask.nonce}
        if ask.timeout is not None:
            headers["x-octet-timeout"] = str(ask.timeout)
        url = f"http://{self._addresses[call.sidecar]}/v1/chat/completions"
        async with self._session.post(url, json=body_of(ask), headers=headers, timeout=_NO_TIMEOUT) as response:
            await read(response, call)

    # What is asked.

    def nonce(self) -> str:
        """A word of its own for each call; long, and of letters: simulated models repeat such words."""
        number, word = next(self._numbers), ""
        while number:
            number, place = divmod(number, 25)  # z only fills up
            word += _LETTERS[place]
        return f"q{self._run}{word:z<12}"

    def ask(self, model: str, tenant: str = "red", **more: Any) -> Ask:
        """A call whose question is its own, unless one is given."""
        nonce = self.nonce()
        return Ask(**{"nonce": nonce, "tenant": tenant, "model": model, "question": nonce, **more})

    def some(self) -> list[Ask]:
        """What comes next: one call, or several that ask the same at once."""
        chance = self._chance
        tenant = chance.choices(("red", "blue", "tight"), (10, 10, 1))[0]
        stream = chance.random() < 0.6
        common = {"stream": stream, "tokens": chance.randint(3, 30), "pace": chance.choice((0.0, 0.01, 0.03))}
        kind = chance.choices(("plain", "kept", "hedged", "sim", "leave", "deadline", "same"), (6, 5, 2, 5, 3, 1, 1))[0]
        if kind == "kept":
            era = int(time.time() / _SECONDS_OF_A_QUESTION)
            question = f"{era}-{chance.randrange(_QUESTIONS)}"
            return [self.ask("kept-1", tenant, stream=stream, question=question, tokens=12, pace=0.01)]
        if kind == "same":
            question = self.nonce()
            same = {"question": question, "tokens": 15, "pace": 0.03, "stream": stream}
            asks = [self.ask("kept-1", each, **same) for each in ("red", "blue", "red", "red")]
            return [*asks, self.ask("kept-1", "red", **same, leave_seconds=0.25)]
        if kind == "sim":
            return [self.ask(chance.choice(("claude-1", "llama-1")), tenant, stream=stream)]
        if kind == "leave":
            more: dict[str, Any] = {"leave_seconds": chance.uniform(0.1, 0.5)}
            if stream:
                more = {"leave_events": chance.randint(1, 5)}
            model = chance.choice(("plain-1", "claude-1", "hedged-1"))
            return [self.ask(model, tenant, **{**common, "tokens": 40, "pace": 0.03, **more})]
        if kind == "deadline":
            return [self.ask("plain-1", tenant, **{**common, "timeout": chance.choice((0.3, 1.0))})]
        return [self.ask(f"{kind}-1", tenant, **common)]

    def round(self) -> list[Ask]:
        """A call to each upstream by itself."""
        return [self.ask(f"{route}-1") for route in ROUTES if route.startswith("only_")]


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)


def body_of(ask: Ask) -> dict[str, Any]:
    """The request's body. The same question of others makes the same body, but for `user`, which does not count."""
    if set(ROUTES[ask.route]) <= DIALECTS.keys():
        return {"model": ask.model, "messages": [{"role": "user", "content": ask.question}], "stream": ask.stream}
    asked = {"question": ask.question, "tokens": ask.tokens, "pace": ask.pace}
    return {
        "model": ask.model,
        "messages": [{"role": "user", "content": json.dumps(asked)}],
        "user": f"{ask.tenant}/{ask.nonce}",
        "stream": ask.stream,
        **({"stream_options": {"include_usage": True}} if ask.stream else {}),
    }
