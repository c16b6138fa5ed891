"""The older completions: their chunks collected, and replayed.

Source: OpenAI API reference, "Completions" (legacy).
"""

from collections.abc import Iterable

from proxy.call import Json
from proxy.errors import CutShort
from proxy.openai_format.chunks import fold_logprobs

_OWN = ("index", "text", "finish_reason", "logprobs")


def collect_texts(chunks: Iterable[Json]) -> Json:
    """Fold the chunks of a stream into the completion it amounts to.

    Raises:
        CutShort: a choice never finished, or there is none.
    """
    whole: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        whole = {**whole, **{name: value for name, value in chunk.items() if name not in whole or value is not None}}
        for part in chunk["choices"]:
            empty = {"index": part["index"], "text": "", "logprobs": None, "finish_reason": None}
            choice = choices.setdefault(part["index"], empty)
            choice["text"] += part.get("text") or ""
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            if part.get("logprobs"):
                fold_logprobs(choice, part["logprobs"])
            choice |= {name: value for name, value in part.items() if name not in _OWN}
    if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
        raise CutShort("the upstream ended its answer early")
    return {**whole, "choices": [choices[index] for index in sorted(choices)]}


def replay_texts(whole: Json) -> list[Json]:
    """The chunks that a stream of this completion would have carried; usage, if known, comes last."""
    head = {name: value for name, value in whole.items() if name not in ("choices", "usage")}
    chunks = [{**head, "choices": [choice]} for choice in whole["choices"]]
    if any("text" not in choice for choice in whole["choices"]):
        raise KeyError("text")
    return [*chunks, {**head, "choices": [], "usage": whole["usage"]}] if whole.get("usage") else chunks
