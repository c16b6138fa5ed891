"""What the process has learnt outlives a reload where its own settings did not change; else it begins anew."""

import asyncio
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

FAST = {"window": 4, "minimum_calls": 2, "open_seconds": 600}
UNRELATED: list[Tree] = [
    {"api_key": "sk-new"},
    {"headers": {"x-n": "1"}},
    {"labels": {"region": "eu"}},
    {"prices": {"*": {"input_per_million": 1}}},
    {"timeouts": {"first_token_seconds": 9}},
    {"limits": {"concurrent": 9}},
]


async def seen(sidecar: Live, name: str = "a") -> Any:
    """How an upstream stands."""
    shown = (await sidecar.ask("GET", "/admin/upstreams"))[1]["upstreams"]
    return next(each for each in shown if each["name"] == name)


async def state(sidecar: Live) -> tuple[str, int]:
    """The state of the circuit of `a`, and the failures in its window."""
    (circuit,) = (await seen(sidecar))["circuits"]
    assert await sidecar.metric("octet_circuit_state", upstream="a") == {"closed": 0, "open": 2}[circuit["state"]]
    return circuit["state"], circuit.get("failures", 0)


async def broken(sidecar: Live, simulator: Simulator, times: int = 2) -> None:
    simulator.script("openai", *[Behaviour(status=500)] * times)
    for _ in range(times):
        assert (await sidecar.told())[0] == 502


@pytest.mark.parametrize("settings", UNRELATED, ids=lambda settings: next(iter(settings)))
async def test_an_open_circuit_stays_open(live: StartLive, simulator: Simulator, settings: Tree) -> None:
    """It does not matter to a circuit what else of its upstream, or of the file, is altered."""
    sidecar = await live(one(simulator, settings={"circuit": FAST}))
    await broken(sidecar, simulator)
    assert await state(sidecar) == ("open", 0)
    tree = one(simulator, settings={"circuit": FAST, **settings})
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    await sidecar.take(tree)
    assert await state(sidecar) == ("open", 0)
    assert (await sidecar.told())[0] == 503
    assert simulator.report.calls == 2


@pytest.mark.parametrize("change", [{"circuit": {**FAST, "window": 5}}, {"base_url": "elsewhere"}])
async def test_a_circuit_begins_anew(live: StartLive, simulator: Simulator, change: Tree) -> None:
    """With another policy, or at another address, what was is forgotten, and half a window too."""
    if "base_url" in change:
        change = {"base_url": simulator.base_url("openai") + "/"}
        change["base_url"] = simulator.base_url("openai").replace("127.0.0.1", "localhost")
    sidecar = await live(one(simulator, settings={"circuit": FAST}))
    await broken(sidecar, simulator)
    await sidecar.take(one(simulator, settings={"circuit": FAST, **change}))
    assert await state(sidecar) == ("closed", 0)
    assert (await sidecar.told())[0] == 200


async def test_half_a_window_is_kept(live: StartLive, simulator: Simulator) -> None:
    """Failures before and after a reload open a circuit together."""
    sidecar = await live(one(simulator, settings={"circuit": FAST}))
    await broken(sidecar, simulator, 1)
    await sidecar.take(one(simulator, settings={"circuit": FAST, "api_key": "sk-new"}))
    assert await state(sidecar) == ("closed", 1)
    await broken(sidecar, simulator, 1)
    assert await state(sidecar) == ("open", 0)
    assert await sidecar.metric("octet_circuit_transitions_total", upstream="a", state="open") == 1


async def test_an_operators_word_holds(live: StartLive, simulator: Simulator) -> None:
    """An upstream that an operator has taken out stays out over reloads until it is reset."""
    sidecar = await live(one(simulator))
    await sidecar.ask("POST", "/admin/upstreams/a/open")
    for number in range(3):
        await sidecar.take(one(simulator, settings={"api_key": f"sk-{number}"}))
        assert ((await seen(sidecar))["circuits"][0]["held"], (await sidecar.told())[0]) == (True, 503)
    await sidecar.ask("POST", "/admin/upstreams/a/reset")
    assert (await sidecar.told())[0] == 200


async def test_a_failure_of_an_old_call_counts(live: StartLive, simulator: Simulator) -> None:
    """Calls of the old generation are judged by the same circuit, where it is kept, and by none where it is not."""
    for settings, expected in (({"api_key": "sk-new"}, ("open", 0)), ({"circuit": {**FAST, "window": 3}}, None)):
        sidecar = await live(one(simulator, settings={"circuit": FAST}))
        simulator.script("openai", *[Behaviour(status=500, delay_seconds=0.1)] * 2)
        calls = [asyncio.create_task(sidecar.told()) for _ in range(2)]
        await simulator.report.wait_for(lambda report: report.open_calls == 2)
        await sidecar.take(one(simulator, settings={"circuit": FAST, **settings}))
        assert [(await call)[0] for call in calls] == [502, 502]
        assert await state(sidecar) == (expected or ("closed", 0))


async def test_buckets_keep_their_level(live: StartLive, simulator: Simulator) -> None:
    """What was used of a limit stays used; a limit that is altered begins full."""
    limits = {"requests_per_minute": 2, "tokens_per_minute": 10_000}
    sidecar = await live(one(simulator, settings={"limits": limits}))
    assert [(await sidecar.told())[0] for _ in range(3)] == [200, 200, 429]
    await sidecar.take(one(simulator, settings={"limits": limits, "api_key": "sk-new", "query": {"v": "2"}}))
    assert (await sidecar.told())[0] == 429
    assert await sidecar.metric("octet_limit_remaining", scope="upstream", limit="requests") < 1
    assert await sidecar.metric("octet_limit_remaining", scope="upstream", limit="tokens") < 10_000
    await sidecar.take(one(simulator, settings={"limits": {**limits, "requests_per_minute": 3}}))
    assert [(await sidecar.told())[0] for _ in range(4)] == [200, 200, 200, 429]
    await sidecar.take(one(simulator))
    assert (await sidecar.told())[0] == 200
    assert (await seen(sidecar))["limits"] is None


async def test_slots_are_held_over_a_reload(live: StartLive, simulator: Simulator) -> None:
    """A place that an old call holds is taken for new calls too, and given back once."""
    limits = {"concurrent": 1, "queue": 0}
    sidecar = await live(one(simulator, settings={"limits": limits}))
    simulator.script("openai", Behaviour(delay_seconds=0.3))
    old = asyncio.create_task(sidecar.told())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.take(one(simulator, settings={"limits": limits, "api_key": "sk-new"}))
    assert await sidecar.metric("octet_slots_in_use", scope="upstream") == 1
    assert (await sidecar.told())[0] == 429
    assert (await old)[0] == 200
    assert await sidecar.metric("octet_slots_in_use", scope="upstream") == 0
    assert (await sidecar.told())[0] == 200


async def test_a_callers_limits_are_its_own(live: StartLive, simulator: Simulator) -> None:
    """A caller's bucket follows its name over a rotated key; altered limits begin anew, those of others do not."""

    def tree(key: str, **limits: int) -> Tree:
        callers = [{"name": "one", "key": key, "limits": limits}]
        callers.append({"name": "two", "key": "sk-two", "limits": {"requests_per_minute": 1}})
        return one(simulator, server={"callers": callers})

    async def ask(key: str) -> int:
        body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {key}"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status

    sidecar = await live(tree("sk-1", requests_per_minute=1))
    assert [await ask("sk-1"), await ask("sk-1"), await ask("sk-two")] == [200, 429, 200]
    await sidecar.take(tree("sk-2", requests_per_minute=1))
    assert [await ask("sk-1"), await ask("sk-2"), await ask("sk-two")] == [401, 429, 429]
    await sidecar.take(tree("sk-2", requests_per_minute=2))
    assert [await ask("sk-2"), await ask("sk-2"), await ask("sk-2"), await ask("sk-two")] == [200, 200, 429, 429]


async def test_latency_and_failures_are_kept(live: StartLive, simulator: Simulator) -> None:
    """Times, the last failures and what the upstream said of its limits survive; at another address they do not."""
    sidecar = await live(one(simulator))
    told = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "30s"}
    simulator.script("openai", Behaviour(headers=told), Behaviour(status=500))
    assert [(await sidecar.told())[0] for _ in range(2)] == [200, 502]
    before = await seen(sidecar)
    await sidecar.take(one(simulator, settings={"api_key": "sk-new"}))
    after = await seen(sidecar)
    for key in ("latency", "failures"):
        assert after[key] == before[key]
    assert after["told_limits"]["gpt-4o-mini"]["left"] == before["told_limits"]["gpt-4o-mini"]["left"]
    await sidecar.take(one(simulator, settings={"query": {"v": "2"}}))
    fresh = await seen(sidecar)
    assert (fresh["failures"], fresh["latency"]["json"]["calls"]) == ([], 0)


async def test_the_retry_budget_is_kept(live: StartLive, simulator: Simulator) -> None:
    """Repeats of an upstream that is down do not begin anew with every reload."""
    retry = {"attempts": 2, "first_wait_seconds": 0.001, "budget": 0.0}
    trees = [one(simulator, routes=[route("one", "a", retry=retry, list=f"m-{number}")]) for number in range(8)]
    sidecar = await live(trees[0])
    simulator.always("openai", Behaviour(status=500))
    for tree in trees[1:]:
        assert (await sidecar.told())[0] == 502
        await sidecar.take(tree)
    assert await sidecar.metric("octet_retry_budget_exhausted_total", upstream="a") == 4
    assert simulator.report.calls == 7 + 3


async def test_in_flight_is_known_to_the_new_one(live: StartLive, simulator: Simulator) -> None:
    """A route that spreads by load counts the calls of the old generation too."""
    tree = one(simulator)
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    tree["routes"] = [route("one", "a", "b", strategy="least_busy")]
    sidecar = await live(tree)
    simulator.always("*", Behaviour(delay_seconds=0.3))
    olds = [asyncio.create_task(sidecar.told()) for _ in range(2)]
    await simulator.report.wait_for(lambda report: report.open_calls == 2)
    tree["upstreams"]["a"]["api_key"] = "sk-new"
    await sidecar.take(tree)
    told = (await sidecar.ask("POST", "/admin/explain", {"model": "one"}))[1]
    assert [target["in_flight"] for target in told["targets"]] == [1, 1]
    await asyncio.gather(*olds)
    loads = sidecar.app.upstreams.now.standings
    await until(lambda: all(load.in_flight == 0 for each in loads.values() for load in each.loads.values()))
