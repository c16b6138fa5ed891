"""JSON Schema of the configuration, from the same models that check it."""

from typing import Any

from proxy.config.model import Config, Providers


def json_schema(providers: Providers) -> dict[str, Any]:
    """The schema for editors (draft 2020-12); scalars that hold `${VAR}` are judged when loaded."""
    schema = Config.model_json_schema()
    upstream = schema["$defs"]["Upstream"]
    upstream["properties"]["provider"]["enum"] = sorted(providers)
    upstream["allOf"] = [
        {
            "if": {"properties": {"provider": {"const": name}}},
            "then": {"properties": {"settings": traits.settings.model_json_schema()}},
        }
        for name, traits in sorted(providers.items())
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Octet"}
