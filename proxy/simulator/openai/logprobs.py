"""Invented log probabilities: the same for the same token, in both of OpenAI's shapes."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

ALTERNATIVES = "the a one it that so and but well yes no maybe here there now then all some each both".split()


def log_probability(token: str) -> float:
    """Return a number from -1 to 0."""
    return -int.from_bytes(blake2b(token.encode(), digest_size=2).digest()) / 65_536


def chat_logprob(token: str, top: int) -> dict[str, Any]:
    """Write one entry of a chat completion's log probabilities.

    Source: OpenAI API reference, "The chat completion object", choices.logprobs.
    """
    best = [_entry(each, own) for each, own in _best(token, top)]
    return {**_entry(token, log_probability(token)), "top_logprobs": best}


def text_logprobs(tokens: Sequence[str], top: int, start: int) -> dict[str, Any]:
    """Write the log probabilities of a bare completion; `start` is the first token's place in characters."""
    offsets, at = [], start
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return {
        "tokens": list(tokens),
        "token_logprobs": [log_probability(token) for token in tokens],
        "top_logprobs": [dict(_best(token, top)) for token in tokens] if top else None,
        "text_offset": offsets,
    }


def _entry(token: str, own: float) -> dict[str, Any]:
    return {"token": token, "logprob": own, "bytes": list(token.encode())}


def _best(token: str, top: int) -> list[tuple[str, float]]:
    others = [(f" {word}", -1.0 - rank) for rank, word in enumerate(ALTERNATIVES)]
    return [(token, log_probability(token)), *others][:top]
