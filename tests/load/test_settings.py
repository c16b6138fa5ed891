"""What the environment says, and what the users then ask."""

import random
import re
from pathlib import Path

import pytest

from tests.load.asking import REPEATED_QUESTIONS, body
from tests.load.settings import PREFIX, VARIABLES, SettingsError, settings_from

DOCS = Path(__file__).parent.parent.parent / "docs" / "load.md"
GOOD = {
    "USERS": "100",
    "WEIGHTS": "streaming=3, hangup=1",
    "THINK_SECONDS": "0.1-0.2",
    "MODELS": "a, b/c",
    "PROMPT_BYTES": "10,5000",
    "REPEATED": "1",
}
BAD = {
    "USERS": "0",
    "SPAWN_RATE": "0",
    "SECONDS": "soon",
    "CALLS": "-1",
    "WEIGHTS": "dreaming=1",
    "THINK_SECONDS": "2-1",
    "MODELS": ",",
    "PROMPT_BYTES": "0",
    "REPEATED": "2",
    "INSECURE": "perhaps",
    "SUCCESS": "95",
}


def given(**texts: str) -> dict[str, str]:
    return {f"{PREFIX}{name}": text for name, text in texts.items()}


def test_an_empty_environment_is_enough() -> None:
    """Every variable has a default; what others put into the environment is none of ours."""
    settings = settings_from({"PATH": "/bin", f"{PREFIX}MODELS": ""})
    assert settings.models == ("gpt-4o-mini", "claude-haiku-4-5")
    assert settings.weights == {"generation": 4, "streaming": 5, "health": 1, "hangup": 0}


def test_variables_are_read() -> None:
    """Numbers, lists, ranges and weights."""
    settings = settings_from(given(**GOOD))
    assert (settings.users, settings.models, settings.prompt_bytes) == (100, ("a", "b/c"), (10, 5000))
    assert settings.think_seconds == (0.1, 0.2)
    assert settings.weights == {"generation": 0, "streaming": 3, "health": 0, "hangup": 1}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_told(name: str) -> None:
    """The variable by its name, what was expected, and what was there."""
    expected = VARIABLES[name.lower()].expected
    with pytest.raises(SettingsError, match=re.escape(f"{PREFIX}{name}: expected {expected}, not {BAD[name]!r}")):
        settings_from(given(**{name: BAD[name]}))


def test_a_misspelt_variable_is_told() -> None:
    """Otherwise its default would be measured."""
    with pytest.raises(SettingsError, match="OCTET_LOAD_USER is not known; did you mean OCTET_LOAD_USERS"):
        settings_from(given(USER="3"))


def test_every_variable_is_documented() -> None:
    """docs/load.md names each with its default."""
    rows = dict(re.findall(r"^\| `OCTET_LOAD_(\w+)` \| `([^`]*)`", DOCS.read_text(), re.MULTILINE))
    assert rows == {name.upper(): each.default for name, each in VARIABLES.items()}


def test_questions_are_new() -> None:
    """Of the sizes and models that were given, so that no cache answers them."""
    settings, chance = settings_from(given(MODELS="a,b", PROMPT_BYTES="100,300")), random.Random(1)
    asked = [body(settings, chance, stream=False) for _ in range(100)]
    prompts = [each["messages"][0]["content"] for each in asked]
    assert {len(prompt) for prompt in prompts} == {100, 300}
    assert {each["model"] for each in asked} == {"a", "b"}
    assert len(set(prompts)) == 100
    assert not any(each["temperature"] == 0 or "stream" in each for each in asked)


def test_questions_are_repeated() -> None:
    """Those that were asked before are the same in every field, and may be kept by a cache."""
    settings = settings_from(given(REPEATED="1", MODELS="a,b"))
    asked = [body(settings, random.Random(seed), stream=True) for seed in range(500)]
    assert all(each["temperature"] == 0 and each["stream"] for each in asked)
    assert 0 < len({str(each) for each in asked}) <= REPEATED_QUESTIONS
