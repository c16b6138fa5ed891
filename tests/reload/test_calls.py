"""/admin/calls: what became of the last calls, without what they said."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream

ODD = ["a/b", "a//b", "a/../b", "a.b:c=d@e+f-g_h", "x" * 128, "/", "//", "+", "=41", "@", ":"]


def two(simulator: Simulator, **more: Any) -> Tree:
    """A route with a second target."""
    tree = one(simulator, **more)
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    tree["routes"] = [route("off", "a", match={"model": "off*"}), route("one", "a", fallback=[{"upstream": "b"}])]
    tree["routes"][1]["retry"] = {"attempts": 3}
    return tree


async def call(sidecar: Live, request_id: str, content: str = "Hello", **fields: Any) -> int:
    body = {"model": "one", "messages": [{"role": "user", "content": content}], **fields}
    headers = {"x-request-id": request_id}
    async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        assert response.headers["x-request-id"] == request_id
        return response.status


async def about(sidecar: Live, request_id: str) -> tuple[int, Any]:
    """What is told of a call; its id is quoted whole."""
    return await sidecar.ask("GET", f"/admin/calls/{quote(request_id, safe='')}")


async def test_a_call_with_failed_attempts(live: StartLive, simulator: Simulator) -> None:
    """Each failed attempt is there with its reason, and the targets in the order in which they were to be tried."""
    sidecar = await live(two(simulator))
    simulator.script("openai", Behaviour(status=503, text="canary-answer"))
    assert await call(sidecar, "it-1", "canary-prompt", user="canary-user") == 200
    status, told = await about(sidecar, "it-1")
    assert status == 200
    (failed,) = told["failed_attempts"]
    assert (failed["upstream"], failed["model"], failed["reason"]) == ("a", "gpt-4o-mini", "Overloaded")
    assert [(each["upstream"], each["fallback"]) for each in told["targets"]] == [("a", False), ("b", True)]
    assert (told["attempts"], told["upstream"], told["outcome"], told["status"]) == (2, "b", "ok", 200)
    assert (told["route"], told["passed_over"]) == ("one", [])
    assert (told["generation"], told["model_asked"], told["stream"]) == (1, "one", False)
    assert "canary" not in str(told)


async def test_a_call_that_failed(live: StartLive, simulator: Simulator) -> None:
    """Of a call without an answer all attempts are there, and why it ended."""
    sidecar = await live(two(simulator))
    simulator.always("*", Behaviour(status=500, text="canary-answer"))
    assert await call(sidecar, "bad") == 502
    told = (await about(sidecar, "bad"))[1]
    assert [each["upstream"] for each in told["failed_attempts"]][:2] == ["a", "b"]
    assert len(told["failed_attempts"]) == told["attempts"] == 3
    assert (told["status"], told["outcome"], told["reason"]) == (502, "upstream_error", "Broken")
    assert "canary" not in str(told)


@pytest.mark.parametrize("model", ["nobody", "canary-model", "ü", "x" * 200])
async def test_a_call_without_a_route(live: StartLive, simulator: Simulator, model: str) -> None:
    """A call that was refused is there too, without a route."""
    sidecar = await live(two(simulator))
    assert await call(sidecar, "lost", model=model) == 404
    told = (await about(sidecar, "lost"))[1]
    assert (told["status"], told["route"], told["attempts"]) == (404, None, 0)


@pytest.mark.parametrize("request_id", ODD)
async def test_odd_ids(live: StartLive, simulator: Simulator, request_id: str) -> None:
    """Every id that is taken from a caller is found again."""
    sidecar = await live(two(simulator))
    assert await call(sidecar, request_id) == 200
    status, told = await about(sidecar, request_id)
    assert (status, told["request_id"]) == (200, request_id)


@pytest.mark.parametrize("request_id", ["nobody", "", "%00", "%ff", "%0d%0aset-cookie:x", "x" * 2000, "*", "ü"])
async def test_ids_that_nobody_has(live: StartLive, simulator: Simulator, request_id: str) -> None:
    """An unknown id is a 404 that does not quote it."""
    sidecar = await live(two(simulator))
    await call(sidecar, "known")
    status, told = await sidecar.ask("GET", f"/admin/calls/{request_id}")
    assert (status, told["error"]["code"]) == (404, "not_found")
    assert request_id == "" or request_id not in told["error"]["message"] or len(request_id) == 1


async def test_the_same_id_twice(live: StartLive, simulator: Simulator) -> None:
    """Of calls with the same id the last is told."""
    sidecar = await live(two(simulator))
    assert await call(sidecar, "twin") == 200
    assert await call(sidecar, "twin", model="nobody") == 404
    assert (await about(sidecar, "twin"))[1]["status"] == 404


async def test_the_ring_is_bounded(live: StartLive, simulator: Simulator) -> None:
    """The last thousand are kept, the newest first; `limit` says how many are shown."""
    sidecar = await live(two(simulator))
    for batch in range(21):
        await asyncio.gather(*(call(sidecar, f"{batch}-{number}", model="nobody") for number in range(50)))
    calls = (await sidecar.ask("GET", "/admin/calls?limit=1000"))[1]["calls"]
    assert len(calls) == 1000
    assert calls[0]["request_id"].startswith("20-")
    assert not any(each["request_id"].startswith("0-") for each in calls)
    assert len((await sidecar.ask("GET", "/admin/calls"))[1]["calls"]) == 100
    assert (await sidecar.ask("GET", "/admin/calls?limit=3"))[1]["calls"] == calls[:3]
    assert (await about(sidecar, "0-1"))[0] == 404
    assert all(each["time"] for each in calls)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e3", "1.5", "٣x", "9" * 30])
async def test_no_such_limit(live: StartLive, simulator: Simulator, limit: str) -> None:
    """What is no number of calls is refused."""
    sidecar = await live(two(simulator))
    status, told = await sidecar.ask("GET", f"/admin/calls?limit={limit}")
    assert (status, told["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("limit", ["000000001" + "0" * 5000, "00000000100000000"])
async def test_a_limit_of_many_digits(live: StartLive, simulator: Simulator, limit: str) -> None:
    """A number that is too long, or too large, is refused, and is no fault of ours."""
    sidecar = await live(two(simulator))
    async with sidecar.http.get(f"{sidecar.admin_url}/admin/calls?limit={limit}") as response:
        assert response.status == 400


async def test_calls_of_all_generations(live: StartLive, simulator: Simulator) -> None:
    """Calls of configurations that are gone are still told, and say which it was."""
    sidecar = await live(two(simulator))
    assert await call(sidecar, "old") == 200
    await sidecar.take(one(simulator, name="two"))
    assert await call(sidecar, "new", model="two") == 200
    calls = (await sidecar.ask("GET", "/admin/calls"))[1]["calls"]
    assert [(each["request_id"], each["generation"], each["route"]) for each in calls] == [
        ("new", 2, "two"),
        ("old", 1, "one"),
    ]
    assert [each["upstream"] for each in calls[1]["targets"]] == ["a", "b"]


async def test_a_kept_answer_and_a_hangup(live: StartLive, simulator: Simulator) -> None:
    """A hit tells its tier and key; a caller who left is told as such."""
    tree = two(simulator)
    tree["routes"][1]["cache"] = {"any_temperature": True}
    sidecar = await live(tree)
    assert [await call(sidecar, f"c{number}") for number in range(3)] == [200] * 3
    told = [(await about(sidecar, f"c{number}"))[1] for number in range(3)]
    assert [each["cache"] for each in told] == ["miss", "memory", "memory"]
    assert len({each["cache_key"] for each in told}) == 1
    simulator.script("openai", Behaviour(stall="before_headers"))
    left = asyncio.create_task(call(sidecar, "left", "other"))
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    left.cancel()
    await sidecar.lines.wait_for(4)
    told = [(await about(sidecar, "left"))[1]]
    assert (told[0]["outcome"], told[0]["upstream"]) == ("hangup", "a")
