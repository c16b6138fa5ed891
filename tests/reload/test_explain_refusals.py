"""What cannot be explained is refused in OpenAI's shape, whatever is sent, and nobody's time is taken."""

import json
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.reload.conftest import StartLive, one, route, upstream

MESSAGES = [{"role": "user", "content": "Hello"}]
BAD: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": [],
    "a text": "one",
    "null": None,
    "no UTF-8": b'{"model": "\xff"}',
    "half a sign": b'{"model": "\\ud800"}',
    "half a sign in a body": b'{"model": "one", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "deep": b'{"model": "one", "body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and whole": b'{"model": "one", "messages": ' + b'[{"a":' * 400 + b"1" + b"}]" * 400 + b"}",
    "nothing asked": {},
    "an unknown key": {"modle": "one"},
    "a model that is a number": {"model": 5},
    "a model that is null": {"model": None},
    "an empty model": {"model": ""},
    "stream that is a word": {"model": "one", "stream": "yes"},
    "headers that are a list": {"model": "one", "headers": ["x"]},
    "a header that is a number": {"model": "one", "headers": {"x": 1}},
    "a header that is null": {"model": "one", "headers": {"x": None}},
    "a body that is a list": {"model": "one", "body": [1]},
    "a body that is a text": {"model": "one", "body": "x"},
    "a caller that is nobody": {"model": "one", "caller": "nobody"},
    "a caller that is a list": {"model": "one", "caller": ["x"]},
    "a caller that is false": {"model": "one", "caller": False},
    "an operation that is none": {"model": "one", "operation": "paint"},
    "an operation that is a list": {"model": "one", "operation": ["chat"]},
    "an operation that is an object": {"model": "one", "operation": {}},
    "messages that are none": {"model": "one", "messages": "Hello"},
    "messages that are empty": {"model": "one", "messages": []},
    "a whole body without a model": {"messages": MESSAGES},
    "a whole body and more": {"model": "one", "body": {"messages": 5}},
    "a model twice": b'{"model": "one", "model": "two", "messages": [{"role": "user", "content": "Hello"}]}',
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_refused(live: StartLive, simulator: Simulator, case: str) -> None:
    """Bad input is the asker's fault: a 4xx that says what is wrong, and the process is none the worse."""
    sidecar = await live(one(simulator))
    body = BAD[case] if isinstance(BAD[case], bytes) else json.dumps(BAD[case]).encode()
    status, told = await sidecar.ask("POST", "/admin/explain", body)
    if status == 200 and "refused" not in told:  # then it is the upstream that judges it, or that it cannot carry it
        assert case == "deep and whole"
        return
    refused = told.get("refused", told.get("error"))
    assert refused["message"]
    if "error" in told:
        assert 400 <= status < 500
        assert {"message", "type", "code", "param"} <= set(told["error"])
    else:
        assert 400 <= refused["status"] < 500
    assert (await sidecar.told())[0] == 200


@pytest.mark.parametrize("asked", [{"headers": 0}, {"headers": []}, {"body": ""}, {"body": False}], ids=str)
async def test_what_is_false_is_not_nothing(live: StartLive, simulator: Simulator, asked: dict[str, Any]) -> None:
    """`headers` and `body` are objects, also where another value is empty."""
    sidecar = await live(one(simulator))
    assert (await sidecar.ask("POST", "/admin/explain", {"model": "one", **asked}))[0] == 400


async def test_a_body_above_the_bound(live: StartLive, simulator: Simulator) -> None:
    """More than 1 MiB is not read."""
    sidecar = await live(one(simulator))
    content = [{"role": "user", "content": "x" * 1024 * 1024}]
    status, told = await sidecar.ask("POST", "/admin/explain", {"model": "one", "messages": content})
    assert (status, told["error"]["type"]) == (413, "invalid_request_error")
    assert (await sidecar.ask("GET", "/admin/explain"))[0] == 405


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ({"model": "one", "messages": MESSAGES, "temperature": 0, "n": 2}, "chat"),
        ({"model": "one", "prompt": "Hello", "max_tokens": 5}, "completions"),
        ({"model": "one", "input": ["Hello", "you"]}, "embeddings"),
        ({"model": "one", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}, "chat"),
    ],
)
async def test_a_whole_body(live: StartLive, simulator: Simulator, body: dict[str, Any], operation: str) -> None:
    """A body that is pasted as it is, is explained as what it is; the same under `body` and its operation."""
    sidecar = await live(one(simulator))
    status, told = await sidecar.ask("POST", "/admin/explain", body)
    assert (status, told["route"], told["first"]["upstream"]) == (200, "one", "a")
    assert told["stream"] is body.get("stream", False)
    again = (await sidecar.ask("POST", "/admin/explain", {"body": body, "operation": operation}))[1]
    assert again == told
    shorter = (await sidecar.ask("POST", "/admin/explain", {"model": "one", "operation": operation}))[1]
    assert shorter["route"] == "one"


async def test_no_content_comes_back(live: StartLive, simulator: Simulator) -> None:
    """Of a prompt that is pasted nothing is told, whether the call is explained or refused."""
    sidecar = await live(one(simulator))
    for body in (
        {"model": "one", "messages": [{"role": "user", "content": "canary-text"}], "user": "canary-user"},
        {"model": "nobody", "messages": [{"role": "user", "content": "canary-text"}]},
        {"model": "one", "messages": [{"role": "canary-role", "content": "canary-text"}]},
    ):
        assert "canary" not in str(await sidecar.ask("POST", "/admin/explain", body))


async def test_why_others_did_not_match(live: StartLive, simulator: Simulator) -> None:
    """Each rule before the one that matches is named with the key that kept the call away; all when none does."""
    tree = one(simulator)
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    matches: list[dict[str, Any]] = [
        {"model": "gpt-*"}, {"model": "one", "stream": True}, {"model": "one", "headers": {"x-a": "1"}},
        {"model": "one", "tools": True}, {"model": "one", "min_prompt_tokens": 1000}, {"model": "one"},
    ]  # fmt: skip
    tree["routes"] = [route(f"r{number}", "a", match=match) for number, match in enumerate(matches)]
    tree["server"]["direct_models"] = False
    sidecar = await live(tree)
    told = (await sidecar.ask("POST", "/admin/explain", {"model": "one"}))[1]
    because = ["match.model", "match.stream", "match.headers.x-a", "match.tools", "match.min_prompt_tokens"]
    assert [each["route"] for each in told["passed_over"]] == ["r0", "r1", "r2", "r3", "r4"]
    for each, expected in zip(told["passed_over"], because, strict=True):
        assert expected.startswith(each["because"])
    assert told["route"] == "r5"
    told = (await sidecar.ask("POST", "/admin/explain", {"model": "x"}))[1]
    assert (told["refused"]["status"], len(told["passed_over"])) == (404, 6)
    assert told["refused"]["code"] == "model_not_found"


async def test_a_caller_who_may_not(live: StartLive, simulator: Simulator) -> None:
    """A caller's own models count; what is refused there is refused here."""
    callers = [{"name": "x", "key": "k", "models": "gpt-*"}]
    sidecar = await live(one(simulator, server={"callers": callers}))
    told = (await sidecar.ask("POST", "/admin/explain", {"model": "one", "caller": "x"}))[1]
    assert (told["refused"]["status"], told["refused"]["code"]) == (403, "model_not_allowed")


async def test_it_follows_reloads(live: StartLive, simulator: Simulator) -> None:
    """It explains by the configuration of now, and says which that is."""
    sidecar = await live(one(simulator))
    await sidecar.take(one(simulator, name="two"))
    told = (await sidecar.ask("POST", "/admin/explain", {"model": "two"}))[1]
    assert (told["generation"], told["route"]) == (2, "two")
