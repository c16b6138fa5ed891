"""The upstreams' own models in /v1/models."""

from proxy.simulator import Simulator
from tests.conftest import MODELS, Sidecar, Start


async def listed(sidecar: Sidecar) -> list[str]:
    return [model.id async for model in sidecar.openai().models.list()]


async def test_they_are_merged_in_the_background(sidecar: Sidecar, simulator: Simulator) -> None:
    """Models of ollama, vllm and tgi join the routes' names, under names that can be called; each is asked once."""
    asked = {"/ollama/api/tags", "/vllm/v1/models", "/tgi/v1/models"}
    await simulator.report.wait_for(lambda report: asked <= {seen.path for seen in report.requests})
    names: list[str] = []
    while {name.partition("/")[0] for name in names if name not in MODELS.values()} != {"ollama", "vllm", "tgi"}:
        names = await listed(sidecar)
    assert names[: len(MODELS)] == list(MODELS.values())
    assert {"ollama/qwen3:latest", "ollama/llama3.2:latest"} <= set(names)
    for path in asked:
        assert len([seen for seen in simulator.report.requests if seen.path == path]) == 1
    for name in names:
        assert (await sidecar.chat(name)).status == 200
        assert (await sidecar.openai().models.retrieve(name)).id == name


async def test_without_direct_addressing(start: Start) -> None:
    """A model that no route leads to is not shown."""
    routes = [
        {"match": {"model": "llama*"}, "targets": [{"upstream": "ollama"}]},
        {
            "match": {"model": "renamed"},
            "targets": [{"upstream": "ollama", "model": "qwen3:latest"}],
            "list": ["extra"],
        },
    ]
    sidecar = await start(server={"direct_models": False}, routes=routes)
    names: list[str] = []
    while "llama3.2:latest" not in names:
        names = await listed(sidecar)
    assert names == ["renamed", "extra", "llama3.2:latest"]


async def test_an_upstream_that_is_away(start: Start) -> None:
    """The list is what the routes say, and nobody waits."""
    sidecar = await start(
        upstreams={
            "ollama": {"base_url": "http://127.0.0.1:1"},
            "vllm": {"list_models": False},
            "tgi": {"list_models": False},
        }
    )
    assert await listed(sidecar) == list(MODELS.values())
