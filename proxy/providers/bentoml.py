"""BentoML: an OpenAI-compatible mount (OpenLLM, BentoVLLM), or a plain @bentoml.api endpoint.

Source: bentoml 1.4.40; reference/upstreams.md §11.
"""

from dataclasses import dataclass
from typing import Literal

from proxy.call import Call
from proxy.config import ProviderTraits, Wire
from proxy.providers import vllm
from proxy.providers.openai.reply import Repairs
from proxy.providers.seam import Provider, Target
from proxy.providers.template.deployment import Deployment, DeploymentSettings, check_query
from proxy.providers.template.settings import COLUMN, PathText


class Settings(DeploymentSettings):
    """What only BentoML knows."""

    mode: Literal["openai", "custom"] = "openai"
    """openai: a mount below /v1; custom: an endpoint whose shape the keys path, request, answer and stream describe."""
    path: PathText = "/generate"
    """mode: custom: the endpoint, below base_url."""


def _wires(settings: Settings) -> tuple[Wire, ...]:
    return ("normalise", "exact") if settings.mode == "openai" else ("normalise",)


@dataclass(frozen=True)
class BentoML(Deployment):
    """BentoML."""

    traits: ProviderTraits = ProviderTraits(
        base_url=None,
        wires=("normalise", "exact"),
        wires_of=_wires,
        settings=Settings,
        columns={"bentoml": vllm.COLUMN, "bentoml custom": COLUMN},
        check=check_query,
        url_variable="BENTOML_BASE_URL",
    )

    def repairs(self, call: Call, target: Target) -> Repairs:  # noqa: ARG002
        return Repairs(tool_finish=True, logprobs=True)


provider: Provider = BentoML()
