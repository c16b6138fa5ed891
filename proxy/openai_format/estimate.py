"""How many tokens a call will use, guessed without a tokeniser: for limits, which are settled with the real usage."""

from collections.abc import Iterator

from proxy.call import Call

BYTES_PER_TOKEN = 4  # of English text in JSON
ANSWER_TOKENS = 256  # when the caller sets no limit
MEDIA_TOKENS = 1000  # of an image or a sound
LEAST_MEDIA_BYTES = 1024
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
            self._tokens = self.prompt + self.answer
        return self._tokens

    @property
    def answer(self) -> int:
        """Tokens that the answers may have."""
        return _answers(self._call)

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, at least 1."""
        if self._prompt is None:
            self._prompt = _prompt(self._call)
        return self._prompt


def NOTHING() -> int:  # noqa: N802
    """The estimate of a call that nobody upstream answers."""
    return 0


def _prompt(call: Call) -> int:
    size, count = len(call.body), 0
    if size > LEAST_MEDIA_BYTES:
        for length in _media(call.body):
            size -= length
            count += 1
    return max(1, size // BYTES_PER_TOKEN + count * MEDIA_TOKENS)


def _media(body: bytes) -> Iterator[int]:
    """The bytes of each image, file or sound: what stands in a data URL, or as `data`. Text is not looked through."""
    for marker, opening in ((b"base64,", b""), (b'"data"', b'"')):
        end = 0
        while (place := body.find(marker, end)) >= 0:
            opened = body.find(opening, place + len(marker))
            closed = body.find(b'"', opened + len(opening)) if opened >= 0 else -1
            if closed < 0:
                break
            length = closed - opened - len(opening)
            if length >= LEAST_MEDIA_BYTES:
                yield length
            end = closed


def _answers(call: Call) -> int:
    members, answer = call.members, None
    for name in _LIMITS:
        if answer is None and name in members:
            answer = _number(call.body[members[name]])
    if answer is None:
        answer = 0 if call.operation == "embeddings" else ANSWER_TOKENS
    return answer * max(1, _number(call.body[members["n"]]) or 1) if "n" in members else answer


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 10 else None
