"""What callers say of the cache, call by call, and what the answers say of it."""

from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.crowd import crowd, grow_older
from tests.conftest import Sidecar, Start
from tests.edge.wire import request

HELLO = [{"role": "user", "content": "Hello"}]


async def ask(sidecar: Sidecar, control: str | None = None, **fields: Any) -> aiohttp.ClientResponse:
    """A call that says this of the cache."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"cache-control": control} if control is not None else {}
    return await sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers)


async def told(sidecar: Sidecar, control: str | None = None, **fields: Any) -> str:
    """Where a good answer came from."""
    response = await ask(sidecar, control, **fields)
    await body_of(response)
    return response.headers["x-octet-cache"]


BOTH = pytest.mark.parametrize("fields", [{}, {"stream": True}])


@BOTH
async def test_no_cache_asks_anew(cached: Sidecar, simulator: Simulator, fields: dict[str, Any]) -> None:
    """A kept answer is passed over; the new one is kept in its place."""
    simulator.script("openai", Behaviour(text="old"), Behaviour(text="new"))
    assert [await told(cached, each, **fields) for each in (None, "no-cache", None)] == ["miss", "miss", "memory"]
    assert b"new" in await body_of(await ask(cached, **fields))
    assert calls(simulator) == 2


@BOTH
async def test_no_store_leaves_nothing(cached: Sidecar, simulator: Simulator, fields: dict[str, Any]) -> None:
    """Neither is a kept answer given, nor is the new one kept."""
    assert await told(cached, "no-store", **fields) == "bypass"
    assert await told(cached, **fields) == "miss"
    assert await told(cached, "No-Store, max-age=60", **fields) == "bypass"
    assert calls(simulator) == 3


async def test_no_store_in_a_line_of_its_own(cached: Sidecar, simulator: Simulator) -> None:
    """A header that comes in several lines says all of what they say."""
    lines = ("cache-control: max-age=60", "cache-control: no-store")
    async with crowd(cached) as people:
        first = await (await people.ask(*lines)).hear()
        second = await (await people.ask(*lines)).hear()
    assert [each.head["x-octet-cache"] for each in (first, second)] == ["bypass", "bypass"]
    assert calls(simulator) == 2


async def test_max_age(cached: Sidecar, simulator: Simulator) -> None:
    """What is older than that is asked anew; what is younger is given, and tells its age."""
    assert await told(cached) == "miss"
    grow_older(cached, 30)
    response = await ask(cached, "max-age=60")
    assert (response.headers["x-octet-cache"], response.headers["age"]) == ("memory", "30")
    assert await told(cached, "max-age=29") == "miss"
    assert await told(cached, "max-age=29") == "memory"
    assert calls(simulator) == 2


@pytest.mark.parametrize("control", ["max-age=0", "max-age=-1", "max-age=ten", 'max-age="0"', "max-age"])
async def test_an_age_that_is_none(cached: Sidecar, simulator: Simulator, control: str) -> None:
    """Nothing that is kept is young enough."""
    await told(cached)
    grow_older(cached, 1)
    assert await told(cached, control) == "miss"
    assert calls(simulator) == 2


@BOTH
async def test_only_if_cached(cached: Sidecar, simulator: Simulator, fields: dict[str, Any]) -> None:
    """What is kept is given; else it is 504 `not_cached`, and nobody is called."""
    response = await ask(cached, "only-if-cached", **fields)
    assert response.status == 504
    assert (await response.json())["error"]["code"] == "not_cached"
    assert calls(simulator) == 0
    await told(cached, **fields)
    assert await told(cached, "only-if-cached", **fields) == "memory"
    grow_older(cached, 10)
    assert (await ask(cached, "only-if-cached, max-age=5", **fields)).status == 504
    assert (await ask(cached, "only-if-cached, no-cache", **fields)).status == 504
    assert (await ask(cached, "only-if-cached, no-store", **fields)).status == 504
    assert calls(simulator) == 1


@pytest.mark.parametrize("control", ["only-if-cached", "no-cache", "no-store", "max-age=9", "", "rubbish;=,,"])
async def test_where_nothing_is_kept(sidecar: Sidecar, simulator: Simulator, control: str) -> None:
    """On routes without a cache only `only-if-cached` means anything."""
    response = await ask(sidecar, control)
    assert response.status == (504 if control == "only-if-cached" else 200)
    assert response.headers["x-octet-cache"] == "bypass"
    assert "x-octet-cache-key" not in response.headers
    assert calls(simulator) == (control != "only-if-cached")


async def test_the_key_is_told(cached: Sidecar) -> None:
    """The same in every answer to the same question, and another for another."""
    first, again, other = await ask(cached), await ask(cached, stream=True), await ask(cached, seed=1)
    keys = [response.headers["x-octet-cache-key"] for response in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]
    assert all(len(key) == 64 for key in keys)
    assert "x-octet-cache-key" not in (await ask(cached, "no-store")).headers


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Behaviour(status=500), 502), (Behaviour(status=400), 400), (Behaviour(garbage="html"), 502)],
)
async def test_errors_say_that_nothing_was_kept(
    cached: Sidecar, simulator: Simulator, behaviour: Behaviour, status: int
) -> None:
    """A failed call was a miss, and has no age."""
    simulator.script("openai", behaviour)
    response = await ask(cached)
    assert (response.status, response.headers["x-octet-cache"]) == (status, "miss")
    assert "age" not in response.headers


async def test_what_calls_come_for(start_cached: StartCached, simulator: Simulator) -> None:
    """HEAD, GET and a body of another kind get no kept answer, and do no harm."""
    sidecar = await start_cached()
    await told(sidecar)
    url = f"{sidecar.url}/v1/chat/completions"
    assert (await sidecar.http.head(url)).status == 405
    assert (await sidecar.http.get(url, headers={"cache-control": "only-if-cached"})).status == 405
    assert await told(sidecar) == "memory"


async def test_expectations(cached: Sidecar, simulator: Simulator) -> None:
    """A caller who waits for `100 Continue` is told so, and gets what is kept."""
    await told(cached)
    async with crowd(cached) as people:
        person = await people.call(b"")
        head, _, body = request("Expect: 100-continue", messages=HELLO).partition(b"\r\n\r\n")
        person.say(head + b"\r\n\r\n")
        assert (await person.hear_head()).status == 100
        person.say(body)
        heard = await person.hear()
    assert (heard.head.status, heard.head["x-octet-cache"]) == (200, "memory")
    assert calls(simulator) == 1


async def test_routes_without_a_cache_share_nothing(start: Start, simulator: Simulator) -> None:
    """Two at once are two calls."""
    sidecar = await start()
    await ask(sidecar, temperature=0)
    await ask(sidecar, temperature=0)
    assert calls(simulator) == 2
