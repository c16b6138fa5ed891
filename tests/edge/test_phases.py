"""Where the time of a call goes: phases that add up on either loop, and an overhead that is our own alone."""

import pytest

from proxy.simulator import Behaviour, Simulator
from proxy.telemetry.metrics import PHASES
from tests.conftest import Sidecar
from tests.edge.wire import asking, call, connect, read_answer, request

ROUNDING = 1e-9


async def phases(sidecar: Sidecar) -> dict[str, float]:
    """The seconds of each phase, as they are told now."""
    return {phase: await sidecar.metric("octet_phase_seconds_total", phase=phase) for phase in PHASES}


async def test_the_phases_of_a_call_add_up(sidecar: Sidecar, simulator: Simulator) -> None:
    """All phases are told; those of a JSON call took some time, and together no longer than the call."""
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        text = await response.text()
    for phase in ("admission", "body", "connect", "upstream", "answer", "queue"):
        assert f'octet_phase_seconds_total{{phase="{phase}"}} 0.0' in text
    simulator.always("openai", Behaviour(delay_seconds=0.05))
    assert (await call(sidecar, request()))[0].status == 200
    spent = await phases(sidecar)
    duration = await sidecar.metric("octet_call_duration_seconds_sum", upstream="openai", mode="json")
    assert set(spent) == {"admission", "body", "connect", "upstream", "answer", "queue"}
    assert all(seconds >= 0 for seconds in spent.values())
    assert 0 < sum(spent.values()) <= duration + ROUNDING
    assert spent["upstream"] > 0.04


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_no_phase_takes_time_back(sidecar: Sidecar, simulator: Simulator, stream: bool) -> None:
    """Counters only grow, also with upstreams so near that connecting and answering take no time to speak of."""
    simulator.always("openai", Behaviour(text="x", headers={"connection": "close"}))
    began = before = await phases(sidecar)
    for _ in range(20):
        assert (await call(sidecar, request(stream=stream)))[0].status == 200
        after = await phases(sidecar)
        assert all(after[phase] >= before[phase] for phase in PHASES)
        assert after["upstream"] > before["upstream"]
        before = after
    assert before["connect"] > began["connect"]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_slow_body_is_no_overhead(sidecar: Sidecar, stream: bool) -> None:
    """The wait for a caller's body is counted as that, and not a second time as the sidecar's own share."""
    data = request("Expect: 100-continue", stream=stream)
    reader, writer = await connect(sidecar)
    writer.write(data[:-20])
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"  # the body is being waited for
    async with asking(sidecar, request(model="claude-haiku-4-5")) as (other, _):
        assert (await read_answer(other))[0].status == 200
    waiting = await phases(sidecar)
    for _ in range(20):  # so long as this takes, the body is late
        assert (await call(sidecar, request(model="nowhere")))[0].status == 404
    writer.write(data[-20:])
    assert (await read_answer(reader))[0].status == 200
    writer.close()
    spent = {phase: seconds - waiting[phase] for phase, seconds in (await phases(sidecar)).items()}
    labels = {"upstream": "openai", "mode": "stream" if stream else "json"}
    overhead = await sidecar.metric("octet_overhead_seconds_sum", **labels)
    duration = await sidecar.metric("octet_call_duration_seconds_sum", **labels)
    assert await sidecar.metric("octet_overhead_seconds_count", **labels) == 1
    assert spent["body"] > 0
    assert 0 < overhead + spent["body"] + spent["upstream"] + spent["connect"] <= duration + ROUNDING
