"""Everything that runs: sidecars, upstreams, the wire between them, Redis, and the file that configures it all."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.chaos.nouns import Execution, Window
from tests.chaos.processes import EchoServer, SidecarServer, SimulatorServer
from tests.chaos.settings import DIALECTS, ECHOES, configuration
from tests.chaos.wire import Wire
from tests.redis_server import RedisServer


class Stage:
    """Use as `async with Stage(folder, sidecars=3) as stage:`; what it has started ends with it."""

    def __init__(self, folder: Path, sidecars: int = 3) -> None:
        self.folder = folder
        self.windows: list[Window] = []
        self.redis = RedisServer(folder)
        self.simulator = SimulatorServer(folder)
        self.echoes = {name: EchoServer(name, folder) for name in ECHOES}
        self.config = folder / "octet.yaml"
        self.sidecars = [SidecarServer(f"sidecar-{number}", folder, self.config) for number in range(sidecars)]
        self.edit = 0  # which edit of the file is in force
        self.edits = 0  # how many there have been
        self.good_file = asyncio.Lock()  # held while it is spoilt, and while somebody needs it
        self.wire: Wire
        self.http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self) -> None:
        await self.redis.start()
        await asyncio.gather(self.simulator.start(), *(echo.start() for echo in self.echoes.values()))
        self.wire = Wire(self.echoes["echo-a"].port)
        await self.wire.start()
        self.write(self.text())
        await asyncio.gather(*(sidecar.start() for sidecar in self.sidecars))

    async def __aexit__(self, *_: object) -> None:
        servers = (*self.sidecars, *self.echoes.values(), self.simulator)
        await asyncio.gather(*(server.stop() for server in servers))
        if hasattr(self, "wire"):
            await self.wire.close()
        await self.redis.kill()
        await self.http.close()

    def text(self) -> str:
        """The configuration as it should be now."""
        simulator = f"http://127.0.0.1:{self.simulator.port}"
        urls = {
            "echo-a": f"http://127.0.0.1:{self.wire.port}/v1",  # through the wire
            "echo-b": f"http://127.0.0.1:{self.echoes['echo-b'].port}/v1",
            **{name: f"{simulator}{path}" for name, (_, path) in DIALECTS.items()},
        }
        return configuration(urls, self.redis.url, self.edit)

    def write(self, text: str) -> None:
        """Put another file in the place of the configuration, whole."""
        new = self.folder / "octet.yaml.new"
        new.write_text(text)
        os.replace(new, self.config)  # noqa: PTH105

    async def disturb(self, upstream: str, **fault: Any) -> None:
        """Have an upstream behave so from now on; nothing given: well."""
        if upstream in self.echoes:
            url = f"http://127.0.0.1:{self.echoes[upstream].port}/_echo"
            response = await self.http.put(url, json=fault)
        else:
            dialect, _ = DIALECTS[upstream]
            url = f"http://127.0.0.1:{self.simulator.port}/_simulator/behaviour"
            response = await self.http.put(url, json={"dialect": dialect, **fault})
        assert response.status == 200, await response.text()
        response.release()

    async def open_calls(self) -> dict[str, int]:
        """How many each upstream is answering now."""
        found = {}
        for name, echo in self.echoes.items():
            async with self.http.get(f"http://127.0.0.1:{echo.port}/_echo") as response:
                told = await response.json()
                assert told["pid"] == echo.pid
                found[name] = told["open_calls"]
        async with self.http.get(f"http://127.0.0.1:{self.simulator.port}/_simulator/report") as response:
            found["simulator"] = (await response.json())["open_calls"]
        return found

    async def metrics(self, sidecar: SidecarServer) -> dict[str, dict[str, float]]:
        """By the metric's name: values by the labels as they are written."""
        async with self.http.get(f"http://{sidecar.admin}/metrics") as response:
            text = await response.text()
        found: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                name, _, labels = sample.partition("{")
                found.setdefault(name, {})[labels.rstrip("}")] = float(value)
        return found

    async def edit_in_force(self, sidecar: SidecarServer) -> int:
        """Of the file, by what the sidecar says."""
        async with self.http.get(f"http://{sidecar.admin}/admin/config") as response:
            return int((await response.json())["config"]["upstreams"]["echo-b"]["labels"]["edit"])

    def executions(self) -> list[Execution]:
        """What the echoes have written down."""
        found: dict[str, Execution] = {}
        for echo in self.echoes.values():
            for line in echo.log.read_text().splitlines():
                note = json.loads(line)
                serial = note["serial"]
                if note["event"] == "begin":
                    found[serial] = Execution(note["upstream"], serial, note["made_for"], note["at"])
                else:
                    found[serial].ended, found[serial].how = note["at"], note["how"]
        return list(found.values())
