"""An OpenAI embeddings request as one for Ollama's /api/embed.

Source: ollama/docs/api.md, "Generate Embeddings"; reference/upstreams.md §3.1.
"""

from proxy.call import Call, Json
from proxy.openai_format.request import read_fields
from proxy.providers.embeddings import read_input
from proxy.providers.ollama.settings import Settings

_CARRIED = ("model", "input", "dimensions", "encoding_format")


def build_embed(call: Call, model: str, settings: Settings) -> tuple[Json, tuple[str, ...]]:
    """The body to send, and the names of what it does not carry."""
    fields = {name: value for name, value in read_fields(call.body).items() if value is not None}
    body: Json = {"model": model, "input": read_input(fields), "truncate": settings.truncate}
    if "dimensions" in fields:
        body["dimensions"] = fields["dimensions"]
    if settings.keep_alive is not None:
        body["keep_alive"] = settings.keep_alive
    if settings.options:
        body["options"] = dict(settings.options)
    return body, tuple(name for name in fields if name not in _CARRIED)
