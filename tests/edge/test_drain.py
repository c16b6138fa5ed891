"""Stopping: what is in flight ends, what is new is turned away, and nobody is left without an end."""

import asyncio
import json

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start


async def test_calls_in_flight_end(sidecar: Sidecar, simulator: Simulator) -> None:
    """A stream and a JSON call that were begun are answered whole, with `connection: close`."""
    simulator.always("openai", Behaviour(text="one two three", delay_seconds=0.2))
    json_call = asyncio.create_task(sidecar.chat())
    stream = asyncio.create_task(sidecar.chat(stream=True))
    await simulator.report.wait_for(lambda report: report.open_calls == 2)
    stopping = asyncio.create_task(sidecar.app.stop())
    answer, streamed = await json_call, await stream
    assert (await answer.json())["choices"][0]["message"]["content"] == "one two three"
    assert (await streamed.text()).endswith("data: [DONE]\n\n")
    assert answer.headers["connection"] == "close"
    await stopping
    with pytest.raises(aiohttp.ClientConnectorError):
        await sidecar.chat()


async def test_what_does_not_end_is_ended(start: Start, simulator: Simulator) -> None:
    """After drain_seconds a stream gets an error event and a JSON call a 503."""
    sidecar = await start(server={"drain_seconds": 0.1})
    simulator.script("openai", Behaviour(text="one two three", stall=2), Behaviour(stall="before_headers"))
    stream = await sidecar.chat(stream=True)
    json_call = asyncio.create_task(sidecar.chat())
    await simulator.report.wait_for(lambda report: report.open_calls == 2)
    await sidecar.app.stop()
    events = (await stream.text()).removesuffix("\n\n").split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
    answer = await json_call
    assert answer.status == 503
    assert (await answer.json())["error"]["code"] == "shutting_down"
    assert [line["outcome"] for line in sidecar.lines.kept] == ["proxy_error", "proxy_error"]
    await simulator.report.wait_for(lambda report: report.open_calls == 0 and report.aborted == 2)


async def test_readiness_goes_first(start: Start) -> None:
    """While it still accepts (drain_delay_seconds), it is no longer ready, and alive all the time."""
    sidecar = await start(server={"drain_delay_seconds": 0.3})
    async with sidecar.http.get(f"{sidecar.url}/readyz") as response:
        assert response.status == 200
    stopping = asyncio.create_task(sidecar.app.stop())
    await asyncio.sleep(0)
    for url in (sidecar.url, sidecar.admin_url):
        async with sidecar.http.get(f"{url}/readyz") as response:
            assert response.status == 503
        async with sidecar.http.get(f"{url}/healthz") as response:
            assert response.status == 200
    assert (await sidecar.chat()).status == 200
    await stopping
