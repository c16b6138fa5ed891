"""Without a file, the environment's keys and addresses are the configuration."""

import pytest

from proxy.config import Config, ConfigError, load_environment
from proxy.providers import traits

KEYS = {"OPENAI_API_KEY": "sk-s3cret", "ANTHROPIC_API_KEY": "sk-ant-s3cret"}


def loaded(**environ: str) -> Config:
    config = load_environment(traits(), environ)
    assert config is not None
    return config


def routes(config: Config) -> list[tuple[str | None, tuple[str, ...], list[str]]]:
    """Name, patterns and upstreams of each route."""
    return [(rule.name, rule.match.model, [target.upstream for target in rule.targets]) for rule in config.routes]


@pytest.mark.parametrize(
    "environ",
    [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, {"PATH": "/bin", "REDIS_URL": ""}],
)
def test_nothing_found_is_nothing(environ: dict[str, str]) -> None:
    """Neither an empty key nor `OPENAI_BASE_URL`, which points at us, makes an upstream."""
    assert load_environment(traits(), environ) is None


def test_each_key_makes_an_upstream() -> None:
    """Keys and addresses are found, each provider's own models go to it, and nothing else is routed."""
    config = loaded(**KEYS, OLLAMA_BASE_URL="http://box:11434/")
    assert set(config.upstreams) == {"openai", "anthropic", "ollama"}
    assert config.upstreams["ollama"].base_url == "http://box:11434"
    found = {name: patterns for name, patterns, _ in routes(config)}
    assert {"gpt-*", "chatgpt-*", "ft:*", "o[0-9]*"} <= set(found["openai"])
    assert found["anthropic"] == ("claude-*",)
    assert "*" not in {pattern for patterns in found.values() for pattern in patterns}
    assert all(name == upstreams[0] for name, _, upstreams in routes(config))


def test_a_single_upstream_gets_everything() -> None:
    """With one key there is nothing to choose."""
    config = loaded(OPENAI_API_KEY="sk-s3cret")
    assert routes(config)[-1] == ("everything", ("*",), ["openai"])
    assert routes(loaded(OLLAMA_BASE_URL="http://box:11434")) == [("everything", ("*",), ["ollama"])]


def test_openai_base_url_is_never_read() -> None:
    """It is what applications use to reach this sidecar: reading it would call ourselves."""
    upstream = loaded(OPENAI_API_KEY="sk-s3cret", OPENAI_BASE_URL="http://127.0.0.1:8080/v1").upstreams["openai"]
    assert upstream.base_url == "https://api.openai.com/v1"


def test_keys_are_used_and_not_shown() -> None:
    """They are there for the upstream, and in no repr."""
    config = loaded(**KEYS)
    key = config.upstreams["anthropic"].api_key
    assert key is not None
    assert key.get_secret_value() == "sk-ant-s3cret"
    assert "s3cret" not in repr(config)


def test_a_wrong_address_is_a_mistake() -> None:
    """It is told by its path, since there is no file, and its text is not repeated."""
    with pytest.raises(ConfigError) as caught:
        load_environment(traits(), {"OLLAMA_BASE_URL": "http://user:s3cret@box"})
    (mistake,) = map(str, caught.value.mistakes)
    assert mistake.startswith("environment: upstreams.ollama.base_url: ")
    assert "s3cret" not in mistake


def test_what_is_found_works_like_a_file() -> None:
    """Nobody needs a key of ours, every upstream is complete, and direct addressing is left on."""
    config = loaded(**KEYS)
    assert config.server.callers == ()
    assert config.server.direct_models is None
    assert all(upstream.base_url and upstream.wire for upstream in config.upstreams.values())


@pytest.mark.parametrize(
    ("environ", "provider", "key"),
    [
        ({"HUGGINGFACE_API_KEY": "hf_1"}, "huggingface", "hf_1"),
        ({"HF_TOKEN": "hf_2"}, "huggingface", "hf_2"),
        ({"VLLM_BASE_URL": "http://gpu:8000", "VLLM_API_KEY": "k"}, "vllm", "k"),
        ({"TGI_BASE_URL": "http://tgi:3000", "TGI_API_KEY": "k"}, "tgi", "k"),
        ({"RAYSERVE_BASE_URL": "http://ray:8000"}, "rayserve", None),
        ({"BENTOML_BASE_URL": "http://bento:3000"}, "bentoml", None),
    ],
)
def test_every_provider_can_come_from_the_environment(environ: dict[str, str], provider: str, key: str | None) -> None:
    """Its address or its key is enough."""
    upstream = loaded(**environ).upstreams[provider]
    assert upstream.base_url
    assert (upstream.api_key.get_secret_value() if upstream.api_key else None) == key


@pytest.mark.parametrize("environ", [{"VLLM_API_KEY": "k"}, {"TGI_API_KEY": "k"}])
def test_a_key_without_an_address_is_nothing(environ: dict[str, str]) -> None:
    """A server that has no public address needs its own."""
    assert load_environment(traits(), environ) is None


def test_redis_of_the_environment() -> None:
    """`REDIS_URL` is where sidecars share state; its password is shown nowhere."""
    config = loaded(OPENAI_API_KEY="k", REDIS_URL="redis://:s3cret@box:6379/1")
    assert config.redis is not None
    assert config.redis.url.get_secret_value() == "redis://:s3cret@box:6379/1"
    assert "s3cret" not in repr(config)
    assert loaded(OPENAI_API_KEY="k").redis is None
