"""Ray Serve: the OpenAI layer of ray.serve.llm, or a plain deployment with JSON of its own.

Source: ray 2.60.0; reference/upstreams.md §10.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from proxy.config import ProviderTraits, Wire
from proxy.errors import ModelMissing, UpstreamError
from proxy.openai_format.errors import read_error
from proxy.providers import vllm
from proxy.providers.seam import Provider, Target
from proxy.providers.template.deployment import Deployment, DeploymentSettings, check_query
from proxy.providers.template.settings import COLUMN, check_names


class Settings(DeploymentSettings):
    """What only Ray Serve knows."""

    mode: Literal["llm", "custom"] = "llm"
    """llm: ray.serve.llm; custom: a deployment whose shape the keys path, request, answer and stream describe."""
    request: Annotated[Any, AfterValidator(check_names)] = {  # noqa: RUF012
        "prompt": "{prompt}",
        "max_tokens": "{max_tokens}",
        "temperature": "{temperature}",
        "stream": "{stream}",
    }
    """mode: custom: the JSON that is sent. "{name}" stands for prompt, messages, last_user, system, model, stream,
    max_tokens, stop or any other field of the caller's, and is left out when there is none."""


# What Ray puts around an error's text: its own exception's name, and tracebacks with addresses and paths.
_WRAPPED = re.compile(r"Message: (.*?)(?: \(Request ID: [^)]*\))?, Internal exception: ", re.DOTALL)


def _wires(settings: Settings) -> tuple[Wire, ...]:
    return ("exact", "normalise") if settings.mode == "llm" else ("normalise",)


@dataclass(frozen=True)
class RayServe(Deployment):
    """Ray Serve."""

    traits: ProviderTraits = ProviderTraits(
        base_url=None,
        wires=("exact", "normalise"),
        wires_of=_wires,
        settings=Settings,
        columns={"rayserve": vllm.COLUMN, "rayserve custom": COLUMN},
        check=check_query,
        url_variable="RAYSERVE_BASE_URL",
    )

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        facts = read_error(body)
        if status == 404 and target.upstream.settings.mode == "llm" and facts.structured:
            return ModelMissing(facts.message)  # a path that is not served is answered in plain text
        error = super().parse_error(target, status, headers, body)
        wrapped = _WRAPPED.match(error.message)
        if wrapped:
            error.message = wrapped[1]
        return error


provider: Provider = RayServe()
