"""An operator asks the parent, and is told of all workers."""

import asyncio
import json
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.workers.conftest import Begin, Fleet, one, wait_until

KEPT = {"ttl_seconds": 600, "any_temperature": True}


def with_cache(simulator: Simulator, **sections: Any) -> dict[str, Any]:
    """The usual file, whose route keeps answers."""
    tree = one(simulator, **sections)
    tree["routes"][0]["cache"] = KEPT
    return tree


async def test_upstreams_of_every_worker(begin: Begin) -> None:
    """Each upstream is told once for each worker, with the worker's number."""
    fleet = await begin()
    told = (await fleet.ask("/admin/upstreams"))["upstreams"]
    assert [(each["worker"], each["name"]) for each in told] == [(0, "a"), (1, "a"), (2, "a")]


async def test_open_and_reset_reach_every_worker(begin: Begin) -> None:
    """An upstream that an operator closes is left alone by all workers, until all are told otherwise."""
    fleet = await begin()
    lines = (await fleet.lines()).values()
    assert (await fleet.ask("/admin/upstreams/a/open?seconds=600", "POST"))["name"] == "a"
    assert [await fleet.call(session=line.session) for line in lines] == [503] * 3
    states = {each["circuits"][0]["state"] for each in (await fleet.ask("/admin/upstreams"))["upstreams"]}
    assert states == {"open"}
    assert (await fleet.ask("/admin/upstreams/a/reset", "POST"))["name"] == "a"
    assert [await fleet.call(session=line.session) for line in lines] == [200] * 3


async def test_a_successor_knows_what_is_held_open(begin: Begin) -> None:
    """An upstream that is to be left alone until somebody says otherwise is left alone by new workers too."""
    fleet = await begin()
    await fleet.ask("/admin/upstreams/a/open", "POST")
    pid = (await fleet.pids())[0]
    fleet.kill(pid)
    await wait_until(lambda: fleet.replaced(pid))
    lines = (await fleet.lines()).values()
    assert [await fleet.call(session=line.session) for line in lines] == [503] * 3


@pytest.mark.parametrize("action", ["open", "reset"])
async def test_no_such_upstream(begin: Begin, action: str) -> None:
    """An upstream that no worker knows is a 404 in OpenAI's shape."""
    fleet = await begin()
    told = await fleet.ask(f"/admin/upstreams/nobody/{action}", "POST", status=404)
    assert told["error"]["code"] == "not_found"


async def test_caches_are_told_as_one_and_purged_as_one(begin: Begin, simulator: Simulator) -> None:
    """Entries of all workers are counted and purged together."""
    fleet = await begin(with_cache(simulator, cache={"memory": {"max_bytes": "30MiB"}}))
    lines = (await fleet.lines()).values()
    for line in lines:
        assert await fleet.call(session=line.session) == 200
        assert await fleet.call(session=line.session) == 200
    assert simulator.report.calls == 3  # each worker has a memory of its own
    told = await fleet.ask("/admin/cache")
    assert told["memory"]["entries"] == 3
    assert told["memory"]["max_bytes"] == 30 * 1024 * 1024
    assert told["redis"] is None
    assert told["in_flight"] == 0
    gone = await fleet.ask("/admin/cache/purge?route=one", "POST")
    assert gone == {"removed": {"memory": 3, "redis": None}}
    assert (await fleet.ask("/admin/cache"))["memory"]["entries"] == 0
    for line in lines:
        assert await fleet.call(session=line.session) == 200
    assert simulator.report.calls == 6
    assert (await fleet.ask("/admin/cache/purge?all", "POST"))["removed"]["memory"] == 3
    await fleet.ask("/admin/cache/purge", "POST", status=400)


async def test_the_last_calls_of_all_workers(begin: Begin) -> None:
    """The newest come first, whichever worker had them, as many as are asked for; one is found by its id."""
    fleet = await begin()
    lines, ids = await fleet.lines(), list[str]()
    for turn in range(4):
        for number, line in lines.items():
            ids.append(f"call-{turn}-{number}")
            headers = {"x-request-id": ids[-1]}
            async with line.session.post(*fleet.asks(), json=fleet.body(), headers=headers) as response:
                assert response.status == 200
    calls = (await fleet.ask("/admin/calls"))["calls"]
    assert [call["request_id"] for call in calls] == ids[::-1]
    assert {call["worker"] for call in calls} == set(lines)
    assert [call["request_id"] for call in (await fleet.ask("/admin/calls?limit=5"))["calls"]] == ids[:-6:-1]
    for request_id in ids[:3]:
        assert (await fleet.ask(f"/admin/calls/{request_id}"))["request_id"] == request_id
    assert (await fleet.ask("/admin/calls/nobody", status=404))["error"]["code"] == "not_found"
    await fleet.ask("/admin/calls?limit=0", status=400)


async def test_explain_sends_nothing(begin: Begin, simulator: Simulator) -> None:
    """The parent explains a call by asking a worker, and no upstream hears of it; what is no call is refused."""
    fleet = await begin()
    told = await fleet.ask("/admin/explain", "POST", json={"model": "one"})
    assert (told["route"], told["first"]) == ("one", {"upstream": "a", "model": "gpt-4o-mini"})
    refused = (await fleet.ask("/admin/explain", "POST", json={"model": "nobody"}))["refused"]
    assert (refused["status"], refused["code"]) == (404, "model_not_found")
    error = (await fleet.ask("/admin/explain", "POST", status=400, json={"modell": "x"}))["error"]
    assert error["param"] == "modell"
    assert (await fleet.ask("/admin/explain", "POST", status=400, data=b"no JSON"))["error"]["message"]
    assert simulator.report.calls == 0


async def test_the_configuration_and_who_serves_it(begin: Begin) -> None:
    """What is in force is shown as the file has it, undivided and without keys, with the workers' processes."""
    fleet = await begin(upstream={"limits": {"concurrent": 10}})
    told = await fleet.ask("/admin/config")
    assert (told["generation"], sorted(told["workers"])) == (1, ["0", "1", "2"])
    assert told["config"]["upstreams"]["a"]["limits"]["concurrent"] == 10
    assert "sk-ours" not in str(told)
    assert len(set(told["workers"].values())) == 3


async def test_who_may_operate(begin: Begin) -> None:
    """A web page needs the token as it does with one process; a new token counts at once after a reload."""
    fleet = await begin(server={"admin_token": "first"})
    page = {"origin": "https://evil.example"}
    for path, method in (("/admin/config", "GET"), ("/admin/upstreams/a/open", "POST"), ("/admin/reload", "POST")):
        assert (await fleet.ask(path, method, 403, headers=page))["error"]["code"] == "admin_token_needed"
    await fleet.ask("/admin/config", headers={**page, "authorization": "Bearer first"})
    fleet.path.write_text(fleet.path.read_text().replace('"first"', '"second"'))
    assert (await fleet.ask("/admin/reload", "POST"))["ok"]
    await fleet.ask("/admin/config", status=403, headers={**page, "authorization": "Bearer first"})
    await fleet.ask("/admin/config", headers={**page, "authorization": "Bearer second"})
    assert await fleet.ask("/healthz", headers=page)


async def test_pages_that_do_not_exist(begin: Begin) -> None:
    """The parent's admin side knows the same pages and methods as that of one process."""
    fleet = await begin()
    await fleet.ask("/admin/workers", status=404)
    await fleet.ask("/admin/reload", status=405)
    await fleet.ask("/admin/config", "POST", status=405)
    await fleet.ask("/v1/chat/completions", "POST", status=404)


async def test_operators_that_ask_all_at_once(begin: Begin) -> None:
    """Many questions at the same time get each its own answer."""
    fleet = await begin()

    async def asked(fleet: Fleet, model: str) -> bool:
        told = await fleet.ask("/admin/explain", "POST", json={"model": model})
        return bool(told["model"] == model)

    assert all(await asyncio.gather(*(asked(fleet, f"model-{number}") for number in range(40))))


async def test_the_status_page_tells_of_all(begin: Begin) -> None:
    """Calls of all workers together, each upstream once, with the failure that was last."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    async with fleet.session().get(fleet.admin + "/admin/live") as response:
        told = json.loads((await response.content.readline())[6:])
    assert (told["workers"], told["generation"], told["ready"]) == (3, 1, True)
    assert told["calls"] == {"ok": len(told["recent"])}
    assert len({call["request_id"] for call in told["recent"]}) >= 3
    assert [each["name"] for each in told["upstreams"]] == ["a"]
    assert told["upstreams"][0]["attempts"] == told["calls"]
    async with fleet.session().get(fleet.admin + "/") as response:
        assert response.content_type == "text/html"
