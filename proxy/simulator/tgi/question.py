"""What TGI is asked beyond what every dialect is asked."""

from dataclasses import dataclass

from proxy.simulator.answers import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted(Question):
    """A raw prompt; `model` is the path it was sent to, since the native endpoints know no models."""

    prompt: str
    adapter: str = "tgi"
    details: bool = False
    prefill: bool = False
    full_text: bool = False
    top_n_tokens: int = 0
