"""What /admin/explain says of a call is what becomes of it, and asking changes nothing."""

import asyncio
import random
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream

FAST = {"window": 4, "minimum_calls": 2, "open_seconds": 600}


def wide(simulator: Simulator) -> Tree:
    """Routes of every kind over five upstreams."""
    names = {"a": "openai", "b": "vllm", "c": "anthropic", "d": "ollama", "e": "tgi"}
    prices = {"a": 5.0, "b": 1.0, "c": 3.0}
    upstreams = {name: upstream(simulator, dialect, labels={"tier": name}) for name, dialect in names.items()}
    for name, price in prices.items():
        upstreams[name]["prices"] = {"*": {"input_per_million": price, "output_per_million": price}}
    weighted = [{"upstream": "a", "model": "m", "weight": 3}, {"upstream": "b", "model": "m", "weight": 2}]
    canary = {"upstream": "e", "model": "m", "share": 0.3}
    routes = [
        route("tools", "c", match={"model": "*", "tools": True}),
        route("streams", "d", "a", match={"model": "ordered", "stream": True}),
        route("team", "b", match={"model": "*", "headers": {"x-team": "b*"}}),
        route("ordered", "a", "b", fallback=[{"upstream": "c"}]),
        route("cheap", "a", "b", "c", strategy="least_cost"),
        route("busy", "a", "b", strategy="least_busy"),
        route("weighted", "x", targets=weighted, strategy="weighted"),
        route("canary", "a", "b", canary=canary),
        route("sticky", "x", targets=weighted, strategy="weighted", sticky="user"),
        route("labelled", "a", "b", "c", require={"tier": ["b", "c"]}, prefer={"tier": "c"}),
        route("chained", "d", fallback=[{"route": "ordered"}]),
        route("small", {"upstream": "a", "model": "m", "max_context_tokens": 30}, "b"),
    ]
    tree = one(simulator, upstreams=upstreams, routes=routes)
    tree["server"]["direct_models"] = True
    return tree


def drawn(chance: random.Random) -> Tree:
    """A call of any kind."""
    models = "ordered cheap busy weighted canary sticky labelled chained small tools nobody a/x b/y".split()
    body: Tree = {
        "model": chance.choice(models),
        "messages": [{"role": "user", "content": "x" * chance.choice([1, 500])}],
    }
    if chance.random() < 0.3:
        body["stream"] = True
    if chance.random() < 0.2:
        body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    if chance.random() < 0.5:
        body["user"] = f"u{chance.randrange(9)}"
    return body


async def explain(sidecar: Live, body: Any, **asked: Any) -> Any:
    status, told = await sidecar.ask("POST", "/admin/explain", {"body": body, **asked} if asked else body)
    assert status == 200, told
    return told


async def made(sidecar: Live, body: Tree, **headers: str) -> tuple[int, Any]:
    """Status and headers of a call."""
    url = f"{sidecar.url}/v1/chat/completions"
    async with sidecar.http.post(url, json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers


async def test_the_first_target_is_the_one(live: StartLive, simulator: Simulator) -> None:
    """Over hundreds of calls of all kinds, route and first target are those of the call that is then made."""
    sidecar, chance, refused = await live(wide(simulator)), random.Random(7), 0
    for _ in range(300):
        body, team = drawn(chance), chance.choice([{}, {"x-team": "blue"}, {"x-team": "red"}])
        told = await explain(sidecar, body, headers=team)
        status, headers = await made(sidecar, body, **team)
        assert (told["model"], told["stream"]) == (body["model"], body.get("stream", False))
        if "refused" in told:
            refused += 1
            assert (told["refused"]["status"], told["route"], told["targets"]) == (status, None, [])
            continue
        assert status == 200
        assert told["route"] == headers["x-octet-route"]
        expected = {"upstream": headers["x-octet-upstream"], "model": headers["x-octet-model"]}
        if told["route"] == "busy":  # nobody is: chance decides between those that are alike
            assert [each["score"] for each in told["targets"]] == [0.0, 0.0]
        else:
            assert told["first"] == expected, (body, told)
        assert headers["x-octet-attempts"] == "1"
    assert 0 < refused < 60


async def test_asking_changes_nothing(live: StartLive, simulator: Simulator) -> None:
    """No counter moves, no upstream is called, nothing is kept, taken or noted, and the answer is the same again."""
    tree = wide(simulator)
    for each in tree["routes"]:
        each["cache"] = {"any_temperature": True}
    tree["upstreams"]["a"]["limits"] = {"concurrent": 1, "requests_per_minute": 5, "tokens_per_minute": 1000}
    sidecar, chance = await live(tree), random.Random(3)
    async with sidecar.http.get(f"{sidecar.url}/v1/models") as response:
        await response.read()
    bodies = [body for body in (drawn(chance) for _ in range(60)) if body["model"] != "busy"]  # there, chance decides
    before, calls, asked = await sidecar.counters(), simulator.report.calls, len(sidecar.lines.kept)
    first = [await explain(sidecar, body) for body in bodies]
    again = [await explain(sidecar, body) for body in bodies]
    after = await sidecar.counters()
    moving = ('octet_limit_remaining{limit="tokens"', "octet_connections{")  # they fill, and close, by themselves
    assert {name for name in after if after[name] != before.get(name) and not name.startswith(moving)} == set()
    assert (simulator.report.calls, len(sidecar.lines.kept)) == (calls, asked)
    assert (await sidecar.ask("GET", "/admin/calls"))[1] == {"calls": []}
    for one_, two in zip(first, again, strict=True):
        assert one_ == two


async def test_a_circuit_in_the_way(live: StartLive, simulator: Simulator) -> None:
    """A target whose circuit is open, or held open, is told, and who is tried instead; no trial call is used up."""
    tree = one(simulator, settings={"circuit": FAST})
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    tree["routes"] = [route("one", "a", "b")]
    sidecar = await live(tree)
    for seconds in ("?seconds=600", ""):
        await sidecar.ask("POST", f"/admin/upstreams/a/open{seconds}")
        told = await explain(sidecar, {"model": "one"})
        assert [(each["circuit"], each["can_be_tried"]) for each in told["targets"]] == [
            ("open", False),
            ("closed", True),
        ]
        assert "left alone" in told["targets"][0]["because"]
        assert told["first"]["upstream"] == "b" == (await sidecar.told())[2]["x-octet-upstream"]
    await sidecar.ask("POST", "/admin/upstreams/b/open")
    told = await explain(sidecar, {"model": "one"})
    status, body, _ = await sidecar.told()
    assert told["first"] is None
    assert (
        (told["refused"]["status"], told["refused"]["code"]) == (status, body["error"]["code"]) == (503, "circuit_open")
    )
    await sidecar.ask("POST", "/admin/upstreams/a/open?seconds=0.001")
    for _ in range(20):
        told = await explain(sidecar, {"model": "one"})
    assert (told["targets"][0]["circuit"], told["first"]["upstream"]) == ("open", "a")
    assert await sidecar.metric("octet_circuit_transitions_total", upstream="a", state="half_open") == 0


async def test_limits_in_the_way(live: StartLive, simulator: Simulator) -> None:
    """A full upstream is told, with the limit, and the next is first; what the upstream itself refuses, too."""
    limits = {"requests_per_minute": 1}
    tree = one(simulator, settings={"limits": limits})
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    tree["routes"] = [route("one", "a", "b")]
    sidecar = await live(tree)
    assert (await sidecar.told())[2]["x-octet-upstream"] == "a"
    told = await explain(sidecar, {"model": "one"})
    assert "limits.requests_per_minute" in told["targets"][0]["because"]
    assert told["targets"][0]["limits"]["requests_per_minute"]["left"] < 1
    assert told["first"]["upstream"] == "b"
    simulator.script("vllm", Behaviour(status=429, retry_after=30))
    assert (await sidecar.told())[0] == 429
    told = await explain(sidecar, {"model": "one"})
    assert told["targets"][1]["because"] == "the upstream's own rate limit is used up"
    status, body, _ = await sidecar.told()
    assert (told["refused"]["status"], told["refused"]["code"]) == (status, body["error"]["code"])


async def test_places_in_use(live: StartLive, simulator: Simulator) -> None:
    """`in_flight` counts, and a target without a free place is passed over, as it is by a call."""
    tree = one(simulator, settings={"limits": {"concurrent": 1, "queue": 0}})
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    tree["routes"] = [route("one", "a", "b")]
    sidecar = await live(tree)
    simulator.script("openai", Behaviour(delay_seconds=0.3))
    busy = asyncio.create_task(sidecar.told())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    told = await explain(sidecar, {"model": "one"})
    assert (told["targets"][0]["in_flight"], told["targets"][0]["can_be_tried"]) == (1, False)
    assert told["first"]["upstream"] == "b" == (await sidecar.told())[2]["x-octet-upstream"]
    assert (await busy)[0] == 200


async def test_prices_and_what_is_dropped(live: StartLive, simulator: Simulator) -> None:
    """Price, estimated cost and the fields that a dialect cannot carry are those of the call."""
    sidecar = await live(wide(simulator))
    body = {"model": "tools", "messages": [{"role": "user", "content": "Hello"}], "seed": 1, "logit_bias": {"1": 1}}
    body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    told = await explain(sidecar, body)
    (target,) = told["targets"]
    assert target["price"] == {"input_per_million": 3.0, "output_per_million": 3.0}
    assert target["estimated_cost_usd"] == pytest.approx(3e-6 * (told["tokens"]["prompt"] + told["tokens"]["answer"]))
    _, headers = await made(sidecar, body)
    assert sorted(target["dropped"]) == sorted(headers["x-octet-dropped"].split(", "))
    assert told["targets"][0]["refuses"] is None


async def test_the_cache_key_is_the_calls(live: StartLive, simulator: Simulator) -> None:
    """Key and what memory holds are told before and after a call, for each caller its own."""
    callers = [{"name": name, "key": f"k-{name}"} for name in ("x", "y")]
    tree = one(simulator, routes=[route("one", "a", cache={}), route("two", "a")], server={"callers": callers})
    sidecar = await live(tree)
    body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    before = (await explain(sidecar, body, caller="x"))["cache"]
    assert (before["cacheable"], before["memory"]) == (True, "none")
    _, headers = await made(sidecar, body, authorization="Bearer k-x")
    assert headers["x-octet-cache-key"] == before["key"]
    assert (await explain(sidecar, body, caller="x"))["cache"] == {**before, "memory": "good"}
    other = (await explain(sidecar, body, caller="y"))["cache"]
    assert (other["memory"], other["key"] != before["key"]) == ("none", True)
    assert (await explain(sidecar, {**body, "temperature": 1}, caller="x"))["cache"]["cacheable"] is False
    assert (await explain(sidecar, {**body, "model": "two"}, caller="x"))["cache"]["because"]
    held = await explain(sidecar, body, caller="x", headers={"Cache-Control": "no-store"})
    assert held["cache"]["cacheable"] is False
