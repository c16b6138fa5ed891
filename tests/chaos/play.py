"""A run from its beginning to its account."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tests.chaos.account import Account, judge
from tests.chaos.callers import Callers
from tests.chaos.faults import Fault, applied
from tests.chaos.nouns import Complaint, Life, Story
from tests.chaos.processes import SidecarServer
from tests.chaos.rest import Footprint, Metrics, allowed, books, footprint, held, left, ports
from tests.chaos.stage import Stage
from tests.monitoring.servers import until

REST_SECONDS = 30.0  # within which everything has to come to rest


class Play:
    """What happens on a stage: load, faults one after another in their lanes, and rest.

    Args:
        say: takes a line for people.
    """

    def __init__(self, stage: Stage, chance: random.Random, say: Callable[[str], object]) -> None:
        self.stage, self._chance, self._say = stage, chance, say
        self.callers = Callers({each.name: each.address for each in stage.sidecars}, random.Random(chance.random()))
        self._began = time.time()
        self._base: dict[str, Footprint] = {}

    def _tell(self, text: str) -> None:
        self._say(f"{time.time() - self._began:7.1f} s  {text}")

    async def begin(self) -> None:
        """See what the sidecars hold before any call."""
        await self.callers.open()
        for sidecar in self.stage.sidecars:
            self._base[sidecar.name] = self._footprint(sidecar)

    async def under(self, fault: Fault, hold: Callable[[], Any]) -> None:
        """What `hold` does, under a fault."""
        self._tell(f"{fault.name} ...")
        async with applied(self.stage, fault, self._chance) as window:
            await hold()
        self._tell(f"... no more: {fault.name} ({window.ended - window.began:.1f} s)")

    async def lane(self, faults: Sequence[Fault], seconds: float, rest: float) -> None:
        """Faults one after another, in an order of chance, until the time is over; about `rest` seconds between two."""
        chance, bag = random.Random(self._chance.random()), list[Fault]()
        until = time.monotonic() + seconds
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        while time.monotonic() < until:
            if not bag:
                bag = chance.sample(faults, len(faults))
            length = chance.uniform(1.0, 3.5)
            await self.under(bag.pop(), lambda length=length: asyncio.sleep(length))  # type: ignore[misc]
            await asyncio.sleep(rest * chance.uniform(0.2, 1.8))

    async def finish(self) -> Account:
        """Let everything come to rest, end it, and judge."""
        self._tell("no more faults and no more load")
        await self.callers.ended()
        complaints = await self._recover()
        await self.callers.ended()
        await self.callers.close()
        await self._until_calm()
        story = Story(self.callers.calls, self.stage.windows)
        found: dict[str, Metrics] = {}
        for sidecar in self.stage.sidecars:
            found[sidecar.name] = metrics = await self.stage.metrics(sidecar)
            now, base = self._footprint(sidecar), self._base[sidecar.name]
            complaints += left(sidecar.name, metrics, now, base, allowed(story.windows))
            self._tell(
                f"{sidecar.name}: {now.descriptors} descriptors ({base.descriptors} at the beginning), "
                f"{now.resident_bytes / 2**20:.1f} MiB ({base.resident_bytes / 2**20:.1f})"
            )
        complaints += await self._upstreams_left()
        await asyncio.gather(*(sidecar.stop() for sidecar in self.stage.sidecars))
        for sidecar in self.stage.sidecars:
            story.lives += _lives(sidecar)
        story.executions = self.stage.executions()
        for sidecar in self.stage.sidecars:
            complaints += books(sidecar.life, found[sidecar.name])
        account = judge(story)
        account.complaints += complaints
        return account

    async def _rounds(self) -> None:
        """A call to every upstream from every sidecar."""
        tasks = [self.callers.send(ask, each.name) for each in self.stage.sidecars for ask in self.callers.round()]
        await asyncio.wait(tasks)

    async def _recover(self) -> list[Complaint]:
        """Call until all circuits are closed, Redis is up and the file is in force, everywhere."""
        wrong: list[str] = []

        async def recovered() -> bool:
            await self._rounds()
            wrong.clear()
            for sidecar in self.stage.sidecars:
                metrics = await self.stage.metrics(sidecar)
                circuits = metrics["octet_circuit_state"]
                wrong.extend(f"{sidecar.name}: the circuit {name} is not closed" for name in circuits if circuits[name])
                if metrics["octet_redis_up"][""] != 1:
                    wrong.append(f"{sidecar.name}: Redis is not up")
                edit = await self.stage.edit_in_force(sidecar)
                if edit != self.stage.edit:
                    wrong.append(f"{sidecar.name}: edit {edit} of the file is in force, not {self.stage.edit}")
            return not wrong

        began = time.monotonic()
        try:
            await until(recovered, REST_SECONDS)
        except TimeoutError:
            return [Complaint("rest", "after the faults", each) for each in wrong]
        self._tell(f"recovered after {time.monotonic() - began:.1f} s: circuits closed, Redis up, the file in force")
        return []

    async def _until_calm(self) -> None:
        """Until no process holds anything of a call, or for so long; what is left is complained of later."""
        wrong: list[str] = []

        async def calm() -> bool:
            wrong[:] = [each.text for each in await self._upstreams_left()]
            for sidecar in self.stage.sidecars:
                wrong.extend(self._footprint(sidecar).sockets.keys() - allowed(self.stage.windows))
                wrong.extend(held(await self.stage.metrics(sidecar)))
            return not wrong

        try:
            await until(calm, REST_SECONDS)
        except TimeoutError:
            self._tell(f"it does not come to rest: {', '.join(wrong)}")

    async def _upstreams_left(self) -> list[Complaint]:
        found = [
            Complaint("rest", name, f"{count} calls are open")
            for name, count in (await self.stage.open_calls()).items()
            if count
        ]
        if self.stage.wire.open:
            found.append(Complaint("rest", "the wire", f"{self.stage.wire.open} connections are open"))
        return found

    def _footprint(self, sidecar: SidecarServer) -> Footprint:
        return footprint(sidecar.pid, ports(self.stage, sidecar))


def _lives(sidecar: SidecarServer) -> list[Life]:
    """With what each has said."""
    found = []
    for life, out, err in sidecar.told():
        whole, _, rest = out.rpartition(b"\n")  # who is killed may leave half a line
        assert not rest or life.how == "killed", rest
        life.lines = [json.loads(line) for line in whole.splitlines()]
        for line in life.lines:
            line["ended"] = datetime.fromisoformat(line["time"]).timestamp()
        life.told = err
        found.append(life)
    return found
