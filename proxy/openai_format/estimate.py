"""How many tokens a call will use, guessed without a tokeniser: for limits, which are settled with the real usage."""

import re

from proxy.call import Call

BYTES_PER_TOKEN = 4  # of English text in JSON
ANSWER_TOKENS = 256  # when the caller sets no limit
MEDIA_TOKENS = 1000  # of an image or a sound
_MEDIA = re.compile(rb"[A-Za-z0-9+/=]{1024,}")
_LIMITS = ("max_completion_tokens", "max_tokens")


class Estimate:
    """The estimate of one call, made when somebody asks, and once."""

    __slots__ = ("_call", "_prompt", "_tokens")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._prompt: int | None = None
        self._tokens: int | None = None

    def __call__(self) -> int:
        """Tokens of prompt and answers together, at least 1."""
        if self._tokens is None:
            self._tokens = self.prompt + _answers(self._call)
        return self._tokens

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, at least 1."""
        if self._prompt is None:
            self._prompt = _prompt(self._call)
        return self._prompt


def _prompt(call: Call) -> int:
    body, media = call.body, 0
    size = len(body)
    if size > 4096:
        for found in _MEDIA.finditer(body):
            size -= found.end() - found.start()
            media += 1
    return max(1, size // BYTES_PER_TOKEN + media * MEDIA_TOKENS)


def _answers(call: Call) -> int:
    answer = next((value for name in _LIMITS if (value := _number(call, name)) is not None), None)
    if answer is None:
        answer = 0 if call.operation == "embeddings" else ANSWER_TOKENS
    return answer * max(1, _number(call, "n") or 1)


def _number(call: Call, name: str) -> int | None:
    place = call.members.get(name)
    text = call.body[place] if place is not None else b""
    return int(text) if text.isdigit() and len(text) < 10 else None
