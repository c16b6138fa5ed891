"""The JSON Schema for editors says what the loader says."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from proxy.config import json_schema
from proxy.config.source import read
from proxy.providers import traits

FOLDER = Path(__file__).parents[2] / "config"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ENVIRON = {"OPENAI_API_KEY": "sk-example", "SIMULATOR_URL": "http://127.0.0.1:8082"}
SCHEMA = json_schema(traits())
VALIDATOR = Draft202012Validator(SCHEMA)


def findings(text: str) -> list[str]:
    """Where the schema is broken."""
    data = read(text.encode(), "octet.yaml", ENVIRON).data
    return sorted(error.json_path for error in VALIDATOR.iter_errors(data))


def test_it_is_a_schema() -> None:
    """It is valid draft 2020-12, and says so."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "Octet"
    assert set(SCHEMA["$defs"]["Upstream"]["properties"]["provider"]["enum"]) == set(traits())


@pytest.mark.parametrize("name", FILES)
def test_it_accepts_the_examples(name: str) -> None:
    """Each file in config/ fits, as this project's reader gives it."""
    assert findings(FOLDER.joinpath(name).read_text()) == []


@pytest.mark.parametrize("name", FILES)
def test_it_accepts_the_examples_as_editors_see_them(name: str) -> None:
    """An editor does not know the environment: `${VAR}` stands there as text."""
    data = yaml.load(FOLDER.joinpath(name).read_text(), Loader=yaml.BaseLoader)  # noqa: S506
    found = [best_match([error]) for error in VALIDATOR.iter_errors(data)]  # of what may be left out, the inner mistake
    assert not {error.json_path for error in found if error is not None and "${" in str(error.instance)}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("upstreams: {a: {provider: openai}}\nrouts: []", "$"),
        ("upstreams: {a: {provider: openai, api_kye: x}}", "$.upstreams.a"),
        ("upstreams: {a: {provider: openai, timeouts: {idle: 1}}}", "$.upstreams.a.timeouts"),
        ("upstreams: {a: {provider: openai}}\nserver: {port: 1}", "$.server"),
        ("upstreams: {a: {provider: openai}}\nroutes: [{targets: [{upstream: a, wait: 1}]}]", "$.routes[0].targets[0]"),
        ("upstreams: {a: {provider: ollama, settings: {truncat: true}}}", "$.upstreams.a.settings"),
        ("upstreams: {a: {provider: openai, settings: {any: 1}}}", "$.upstreams.a.settings"),
    ],
)
def test_it_refuses_an_unknown_key(text: str, place: str) -> None:
    """A misspelt key is marked where it stands, also among a provider's own settings."""
    assert findings(text) == [place]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("routes: []", "$"),
        ("upstreams: {a: {}}", "$.upstreams.a"),
        ("upstreams: {a: {provider: opnai}}", "$.upstreams.a.provider"),
        ("upstreams: {a: {provider: openai, wire: raw}}", "$.upstreams.a.wire"),
        ("upstreams: {a: {provider: openai, timeouts: {idle_seconds: 0}}}", "$.upstreams.a.timeouts.idle_seconds"),
        ("upstreams: {a: {provider: openai}}\nserver: {max_body_bytes: 1 potato}", "$.server.max_body_bytes"),
        ("upstreams: {a: {provider: openai}}\nserver: {listen: 8080}", "$.server.listen"),
        ("upstreams: {a: {provider: openai}}\nroutes: [{targets: []}]", "$.routes[0].targets"),
    ],
)
def test_it_refuses_what_the_loader_refuses(text: str, place: str) -> None:
    """Missing keys, unknown words, ranges and sizes are marked."""
    assert place in findings(text)


@pytest.mark.parametrize(
    "server",
    [
        "{listen: '127.0.0.1:8080'}",
        "{listen: ['127.0.0.1:8080', 'unix:/run/octet.sock']}",
        "{max_body_bytes: 64MiB}",
        "{max_body_bytes: 1024}",
        "{cors_origins: '*'}",
        "{drain_seconds: 5}",
        "{callers: [{name: a, key: k, models: gpt-*}]}",
    ],
)
def test_it_accepts_every_way_to_write(server: str) -> None:
    """One or many, a number or a size with its unit: what loads is not marked."""
    assert findings(f"upstreams: {{a: {{provider: openai}}}}\nserver: {server}") == []
