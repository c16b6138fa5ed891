"""Each file in config/ is a configuration that works."""

from pathlib import Path

import pytest

from proxy.config import load
from proxy.providers import traits

FOLDER = Path(__file__).parents[2] / "config"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ENVIRON = {"OPENAI_API_KEY": "sk-example", "SIMULATOR_URL": "http://127.0.0.1:8082"}


def test_there_are_examples() -> None:
    """The folder is where this test looks for it."""
    assert {"octet.yaml", "minimal.yaml", "demo.yaml"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_example_loads(name: str) -> None:
    """It is free of mistakes, and every upstream in it is complete."""
    config = load(str(FOLDER / name), traits(), ENVIRON)
    assert config.upstreams
    assert all(upstream.base_url and upstream.wire for upstream in config.upstreams.values())
    assert all(route.name for route in config.routes)
    assert "sk-example" not in repr(config)


def test_the_annotated_example_needs_no_environment() -> None:
    """It can be checked as it is, on any machine."""
    load(str(FOLDER / "octet.yaml"), traits(), {})


def test_the_minimal_example_sends_everything_to_openai() -> None:
    """Its one key comes from the environment."""
    config = load(str(FOLDER / "minimal.yaml"), traits(), ENVIRON)
    key = config.upstreams["openai"].api_key
    assert key is not None
    assert key.get_secret_value() == "sk-example"
    assert [(route.match.model, [target.upstream for target in route.targets]) for route in config.routes] == [
        (("*",), ["openai"])
    ]
