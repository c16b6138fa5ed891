"""What the users ask: bodies of calls, new ones and some that were asked before."""

import random
from typing import Any

from tests.load.settings import Settings

REPEATED_QUESTIONS = 50
_WORDS = "harbour lantern copper orchard saddle thunder velvet walnut meadow pepper anchor violin".split()


def body(settings: Settings, chance: random.Random, *, stream: bool) -> dict[str, Any]:
    """A call's body: its model, size and words by chance; asked before, as often as the settings say."""
    again = chance.random() < settings.repeated
    words = random.Random(chance.randrange(REPEATED_QUESTIONS)) if again else chance  # a question has all of its own
    asked: dict[str, Any] = {
        "model": words.choice(settings.models),
        "messages": [{"role": "user", "content": _prompt(words, words.choice(settings.prompt_bytes))}],
        "max_tokens": settings.max_tokens,
        "temperature": 0 if again else 0.7,
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


def _prompt(words: random.Random, size: int) -> str:
    text = f"Tell me about number {words.getrandbits(40)}:"
    while len(text) < size:
        text += f" {words.choice(_WORDS)}"
    return text[:size]
