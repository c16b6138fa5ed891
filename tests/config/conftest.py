"""Configurations from a text, checked against a few providers of the tests' own."""

from collections.abc import Callable, Mapping

import pytest

from proxy.config import Config, ConfigError, ProviderTraits, Section
from proxy.config.load import build
from proxy.config.source import read


class Settings(Section):
    """What only one provider knows."""

    truncate: bool = False


@pytest.fixture
def known() -> Mapping[str, ProviderTraits]:
    """A provider of every sort: with a public address and without, of both wires and of one."""
    return {
        "openai": ProviderTraits("https://api.openai.example/v1", ("exact", "normalise")),
        "anthropic": ProviderTraits("https://api.anthropic.example", ("normalise",)),
        "ollama": ProviderTraits("http://localhost:11434", ("normalise",), list_models=True, settings=Settings),
        "vllm": ProviderTraits(None, ("exact", "normalise")),
    }


@pytest.fixture
def config(known: Mapping[str, ProviderTraits]) -> Callable[..., Config]:
    """Loads a text, with variables of the environment."""

    def loaded(text: str, **environ: str) -> Config:
        return build(read(text.encode(), "octet.yaml", environ), known)

    return loaded


@pytest.fixture
def mistakes(config: Callable[..., Config]) -> Callable[..., list[str]]:
    """All that is wrong with a text, in the words that people see."""

    def told(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            config(text, **environ)
        assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))
        return [str(mistake) for mistake in caught.value.mistakes]

    return told
