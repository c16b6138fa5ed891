"""We fetch nothing that callers or upstreams name: addresses in messages are passed on or refused, redirects end."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.conftest import DIALECTS, MODELS, STEADY, Sidecar, Start
from tests.security.far_side import answer, far_side, openai
from tests.waiting import until

REDIRECTS = (300, 301, 302, 303, 305, 307, 308)
REST = {"retry": {"attempts": 1}}


def parts(url: str) -> list[list[dict[str, Any]]]:
    """Contents that name an address, in every way that messages can."""
    text = {"type": "text", "text": f"see {url}"}
    return [
        [text, {"type": "image_url", "image_url": {"url": url}}],
        [text, {"type": "image_url", "image_url": {"url": url, "detail": "high"}}],
        [text, {"type": "image_url", "image_url": url}],
        [text, {"type": "image", "source": {"type": "url", "url": url}}],
        [text, {"type": "input_image", "image_url": url}],
        [text, {"type": "video_url", "video_url": {"url": url}}],
        [text, {"type": "audio_url", "audio_url": {"url": url}}],
        [text, {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}],
        [text, {"type": "file", "file": {"file_url": url}}],
        [text, {"type": "file", "file": {"file_data": url, "filename": url}}],
        [text, {"type": "document", "source": {"type": "url", "url": url}}],
    ]


async def ask(sidecar: Sidecar, model: str, content: Any, **more: Any) -> int:
    response = await sidecar.chat(model, messages=[{"role": "user", "content": content}], **more)
    await response.read()
    return response.status


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_addresses_in_messages(sidecar: Sidecar, simulator: Simulator, dialect: str) -> None:
    """Whatever stands in a message, nobody is connected to but the upstream; refused, or passed on as it stands."""
    async with far_side() as trap:
        told: set[int] = set()
        for url in (f"{trap.url}/secret.png", f"HTTP://{trap.address}/a", f"//{trap.address}/a"):
            for content in parts(url):
                told.add(await ask(sidecar, MODELS[dialect], content))
                tool = {"type": "function", "function": {"name": "f", "parameters": {"$ref": url, "$schema": url}}}
                told.add(await ask(sidecar, MODELS[dialect], "hi", tools=[tool], user=url, metadata={"url": url}))
        assert told <= {200, 400}
        assert await ask(sidecar, MODELS[dialect], f"see {trap.url}") == 200
        assert trap.met == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_files_of_ours(sidecar: Sidecar, simulator: Simulator, tmp_path: Path, dialect: str) -> None:
    """A `file:` address, or a path, is never read: an upstream gets the words, or the call is refused."""
    file = tmp_path / "secret.png"
    file.write_text("canary-in-a-file")
    coded = base64.b64encode(file.read_bytes())
    for url in (f"file://{file}", str(file), f"file://localhost{file}", f"data:text/plain,{file}"):
        for content in parts(url):
            assert await ask(sidecar, MODELS[dialect], content) in (200, 400)
    assert await ask(sidecar, MODELS[dialect], str(file)) == 200
    sent = [seen.body for seen in simulator.report.requests if seen.method == "POST"]
    assert file.name.encode() in sent[-1]
    assert not [body for body in sent if b"canary" in body or coded in body]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_redirect_of_a_call(start: Start, dialect: str, stream: bool) -> None:
    """The call ends with a 502 that names no address; nobody gets our key and the prompt but whom we asked."""
    async with far_side() as trap, far_side() as side:
        sidecar = await start(upstreams={dialect: {"base_url": side.url, "list_models": False}})
        for number, status in enumerate(REDIRECTS, 1):
            side.said = answer(b"", b"Location: " + trap.url.encode(), b"Refresh: 0", status=b"%d Over there" % status)
            response = await sidecar.chat(MODELS[dialect], stream=stream)
            body = await response.json()
            assert (response.status, body["error"]["code"]) == (502, "upstream_misconfigured"), status
            assert trap.address not in json.dumps(body)
            assert "location" not in response.headers
            assert len(side.seen) == number
        assert trap.met == 0


async def test_a_redirect_of_the_models(start: Start) -> None:
    """A list of models, and a look whether an upstream is back, are not fetched from elsewhere either."""
    async with far_side() as trap:
        said = answer(b"", b"Location: " + trap.url.encode(), status=b"307 Over there")
        async with far_side(said) as side:
            check = {"kind": "models", "interval_seconds": 0.05}
            upstream = openai(side, list_models=True, health_check=check,
                              circuit={**STEADY, "window": 2, "minimum_calls": 1, "open_seconds": 60})  # fmt: skip
            sidecar = await start(
                upstreams={"openai": upstream}, routes=[{"targets": [{"upstream": "openai"}], **REST}]
            )
            assert (await sidecar.chat()).status == 502
            await until(lambda: sum(seen.startswith(b"GET") for seen in side.seen) >= 3)
            assert (await sidecar.chat()).status == 503
        assert trap.met == 0
    assert {seen.split(b" ")[1] for seen in side.seen} == {b"/v1/models", b"/v1/chat/completions"}
