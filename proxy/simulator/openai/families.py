"""What some families of OpenAI's models refuse."""

import re

from proxy.simulator.dialect import Body
from proxy.simulator.openai.checks import refuse

_REASONS = re.compile(r"(?:o[1-9](?=-|$)|gpt-(?P<major>[5-9])(?:\.(?P<minor>\d+))?(?=-|$))(?!.*-chat)")
_REFUSES_STOP = re.compile(r"o3(-|$)|o4-mini")
_HAS_NO_EFFORT = re.compile(r"gpt-(3\.5|4)")
_NEEDS_EFFORT = re.compile(r"gpt-6-astra|gpt-6\.1-sol")
_DEFAULTS = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_TOKENS_BY_EFFORT = {"low": 16, "medium": 32, "high": 64, "xhigh": 128, "max": 256}


def check_family(request: Body) -> None:
    """Refuse what a reasoning model refuses, and effort where there is no reasoning.

    Source: OpenAI guide, "Reasoning models"; reports on gpt-5.4 and later (tools with an effort).
    """
    model = request["model"]
    found = _REASONS.match(model)
    effort = request.get("reasoning_effort")
    if found is None:
        if effort is not None and _HAS_NO_EFFORT.match(model):
            raise refuse("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort")
        return
    if "max_tokens" in request:
        raise _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    version = (int(found["major"] or 0), int(found["minor"] or 0))
    _check_effort(model, effort)
    if effort != "none" or version < (5, 1):
        _check_sampling(request)
    has_functions = "functions" in request or any(tool["type"] == "function" for tool in request.get("tools", ()))
    if version >= (5, 4) and effort != "none" and has_functions:
        message = (
            f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "Please use /v1/responses instead or set reasoning_effort to 'none'."
        )
        raise refuse(message, "reasoning_effort")
    if "stop" in request and _REFUSES_STOP.match(model):
        raise _unsupported("stop")


def count_hidden_thoughts(model: str, effort: str | None) -> int:
    """Return how many tokens a model thinks when it was told how hard to; otherwise none."""
    return _TOKENS_BY_EFFORT.get(effort or "", 0) if _REASONS.match(model) else 0


def _check_effort(model: str, effort: str | None) -> None:
    if _NEEDS_EFFORT.match(model) and effort in ("none", "max"):
        message = f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
        raise refuse(message, "reasoning_effort", "unsupported_value")


def _check_sampling(request: Body) -> None:
    for name, default in _DEFAULTS.items():
        if request.get(name, default) != default:
            message = (
                f"Unsupported value: '{name}' does not support {request[name]} with this model. "
                f"Only the default ({default}) value is supported."
            )
            raise refuse(message, name, "unsupported_value")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if request.get(name):
            raise _unsupported(name)


def _unsupported(name: str, hint: str = "") -> Exception:
    message = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
    return refuse(message, name, "unsupported_parameter")
