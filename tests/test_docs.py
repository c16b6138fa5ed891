"""README, docs and examples tell the truth about the code."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from proxy.config import Config
from proxy.config.load import build
from proxy.config.source import read
from proxy.providers import traits
from proxy.simulator import Behaviour

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def names(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a model and of the models below it."""
    for name, field in model.model_fields.items():
        yield name
        stack = [field.annotation]
        while stack:
            annotation = stack.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from names(annotation)
            stack += get_args(annotation)


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    """The YAML that newcomers copy is right (but for the secret file, which they have)."""
    blocks = re.findall(r"```yaml\n(.*?)```", ROOT.joinpath("README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    secret = tmp_path / "anthropic"
    secret.write_text("key")
    text = blocks[0].replace("/run/secrets/anthropic", str(secret))
    environ = {"SEARCH_KEY": "a", "OPENAI_API_KEY": "b"}
    assert build(read(text.encode(), "README.md", environ), traits()).routes[0].name == "canary"


def test_the_annotated_example_holds_every_key() -> None:
    """A key that config/octet.yaml does not show would be known to nobody."""
    text = ROOT.joinpath("config/octet.yaml").read_text()
    keys = set(names(Config)).union(*(names(each.settings) for each in traits().values()))
    assert not {key for key in keys if not re.search(rf"\b{key}\b", text)}


@pytest.mark.parametrize("name", ["upstreams.md", "resilience.md", "metrics.md"])
def test_the_tables_are_what_the_code_declares(name: str) -> None:
    """They are generated: `make docs`."""
    text = ROOT.joinpath("docs", name).read_text()
    namespace = runpy.run_path(str(ROOT / "docs/generate.py"))
    assert namespace["page"](name, text) == text
    assert "<!-- generated" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link has its file."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [
        link for link in links if not (page.parent / link).exists() and not (page.parent / f"{link}.md").exists()
    ]


def test_every_behaviour_is_documented() -> None:
    """docs/simulator.md names each field."""
    text = ROOT.joinpath("docs/simulator.md").read_text()
    assert not [name for name in Behaviour.__slots__ if f"`{name}`" not in text]


RECIPES = re.findall(r"```yaml\n(.*?)```", ROOT.joinpath("docs/routing.md").read_text(), re.DOTALL)
UPSTREAMS = """
upstreams:
  openai: {provider: openai, api_key: k, prices: {"*": {input_per_million: 1}}}
  azure: {provider: openai, base_url: "https://azure.example/v1"}
  claude: {provider: anthropic, api_key: k}
  laptop: {provider: ollama, base_url: "http://localhost:11434"}
  gpu: {provider: vllm, base_url: "http://vllm:8000"}
"""


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_loads(recipe: str) -> None:
    """What docs/routing.md tells people to write is right."""
    text = recipe if "upstreams:" in recipe else UPSTREAMS + recipe
    config = build(read(text.encode(), "docs/routing.md", {"SEARCH_KEY": "a", "BATCH_KEY": "b"}), traits())
    assert config.routes
