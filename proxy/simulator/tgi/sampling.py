"""The bounds of sampling, the same for chats and for raw prompts."""

from typing import Any

from proxy.simulator.dialect import Body
from proxy.simulator.tgi.checks import invalid

MOST_STOPS = 4
MOST_TOP_TOKENS = 5
MOST_TOTAL_TOKENS = 131_072


def check_sampling(parameters: Body, prompt_tokens: int) -> None:
    """Refuse parameters out of their bounds.

    Args:
        parameters: by their native names, without nulls.
        prompt_tokens: how long the prompt is.

    Raises:
        Refused: a validation error.

    Source: text-generation-inference, router/src/validation.rs, Validation::validate.
    """
    for name, (holds, rule) in _RULES.items():
        if name in parameters and not holds(parameters[name]):
            raise invalid(f"`{name}` {rule}")
    stops = parameters.get("stop", [])
    if len(stops) > MOST_STOPS:
        raise invalid(f"`stop` supports up to {MOST_STOPS} stop sequences. Given: {len(stops)}")
    top = parameters.get("top_n_tokens", 0)
    if top > MOST_TOP_TOKENS:
        raise invalid(f"`top_n_tokens` must be >= 0 and <= {MOST_TOP_TOKENS}. Given: {top}")
    limit = parameters.get("max_new_tokens", 1)
    if limit == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if prompt_tokens + limit > MOST_TOTAL_TOKENS:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {MOST_TOTAL_TOKENS}. "
            f"Given: {prompt_tokens} `inputs` tokens and {limit} `max_new_tokens`"
        )


def _is_positive(value: Any) -> bool:
    return bool(value > 0)


def _is_open_fraction(value: Any) -> bool:
    return bool(0 < value < 1)


_POSITIVE = (_is_positive, "must be strictly positive")
_FRACTION = (_is_open_fraction, "must be > 0.0 and < 1.0")
_RULES = {
    "temperature": _POSITIVE,
    "repetition_penalty": _POSITIVE,
    "top_k": _POSITIVE,
    "truncate": _POSITIVE,
    "top_p": _FRACTION,
    "typical_p": _FRACTION,
    "frequency_penalty": (lambda value: -2 <= value <= 2, "must be >= -2.0 and <= 2.0"),
}
