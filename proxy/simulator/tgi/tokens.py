"""The tokens TGI shows: each piece of an answer, then what ended it."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from proxy.simulator.answers import Answer

END = "</s>"  # the special token that ends an answer
VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Token:
    """One token; special ones have no place in the text."""

    text: str
    special: bool = False

    @property
    def id(self) -> int:
        """Its number, the same for the same text."""
        return 2 if self.special else 3 + self._digest % (VOCABULARY - 3)

    @property
    def logprob(self) -> float:
        """An invented probability, the same for the same text."""
        return -(1 + self._digest % 400) / 256  # a binary fraction, so that it is spelt shortly

    @property
    def _digest(self) -> int:
        return int.from_bytes(blake2b(self.text.encode(), digest_size=4).digest(), "big")


def tokens_of(answer: Answer) -> tuple[Token, ...]:
    """Return all tokens; the text of a stop sequence is among them, and so in the answer."""
    said = tuple(Token(piece) for piece in answer.pieces)
    if answer.finish == "length":
        return said
    return (*said, Token(answer.stopped_by) if answer.stopped_by is not None else Token(END, special=True))


def said(tokens: tuple[Token, ...]) -> str:
    """Join the text of all tokens that have a place in it."""
    return "".join(token.text for token in tokens if not token.special)


def write_token(token: Token) -> dict[str, Any]:
    """Write a token as the native endpoints do."""
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def others(token: Token, count: int) -> list[Token]:
    """Invent the most likely tokens at a place, the chosen one first."""
    return [token, *(Token(f"{token.text}{index}") for index in range(1, count))] if count else []
