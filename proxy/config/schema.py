"""JSON Schema of the configuration, from the same models that check it."""

from typing import Any

from proxy.config.model import Config, Providers


def json_schema(providers: Providers) -> dict[str, Any]:
    """The schema for editors (draft 2020-12); scalars that hold `${VAR}` are judged when loaded."""
    schema = Config.model_json_schema()
    upstream = schema["$defs"]["Upstream"]
    upstream["properties"]["provider"]["enum"] = sorted(providers)
    upstream["allOf"] = []
    for name, traits in sorted(providers.items()):
        settings = traits.settings.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        schema["$defs"] |= {f"{name}.{inner}": model for inner, model in settings.pop("$defs", {}).items()}
        upstream["allOf"].append(
            {
                "if": {"properties": {"provider": {"const": name}}},
                "then": {"properties": {"settings": settings}},
            }
        )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Octet"}
