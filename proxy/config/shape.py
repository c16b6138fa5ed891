"""Types, ranges and unknown keys: pydantic's findings, told in our words at the file's places."""

from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from proxy.config.mistakes import Path, nearest
from proxy.config.model import Config, Providers
from proxy.config.section import Section
from proxy.config.source import Document

Model = TypeVar("Model", bound=Section)

_TEXTS = {
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def check_shape(document: Document, providers: Providers) -> Config | None:
    """Validate the whole tree; mistakes go to the document."""
    if not isinstance(document.data, dict):
        document.mistake((), "must be a mapping with the keys server, upstreams, routes")
        return None
    config = _validate(document, Config, document.data, ())
    upstreams = document.data.get("upstreams")
    for name, upstream in upstreams.items() if isinstance(upstreams, dict) else ():
        traits = providers.get(str(upstream.get("provider"))) if isinstance(upstream, dict) else None
        if traits and "settings" in upstream:
            _validate(document, traits.settings, upstream["settings"], ("upstreams", name, "settings"))
    return config


def _validate(document: Document, model: type[Model], data: Any, base: Path) -> Model | None:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False)
        for finding in findings:
            if finding["type"] == "too_short" and any(_below(other["loc"], finding["loc"]) for other in findings):
                continue  # pydantic counts only the items that are right
            path = tuple(step for step in finding["loc"] if step != "[key]")
            document.mistake((*base, *path), _describe(model, path, finding))
        return None


def _below(path: Path, parent: Path) -> bool:
    return len(path) > len(parent) and path[: len(parent)] == parent


def _describe(model: type[BaseModel], path: Path, finding: Any) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        return f'unknown key "{path[-1]}"{nearest(str(path[-1]), _keys_at(model, path[:-1]))}'
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return "must be 1 to 64 letters, digits, dots, dashes or underscores"
    if kind in _TEXTS:
        return _TEXTS[kind]
    return str(finding["msg"]).replace("Input should be", "must be")


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that may stand at a path, by walking the models' annotations."""
    here: Any = model
    for step in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(step))
            here = _inner(field.annotation) if field else None
        else:
            here = _inner(get_args(here)[-1] if get_origin(here) is dict else get_args(here)[0])
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _inner(annotation: Any) -> Any:
    """Without None and without annotations' metadata."""
    if hasattr(annotation, "__metadata__"):
        return _inner(annotation.__origin__)
    options = [option for option in get_args(annotation) if option is not type(None)]
    if type(None) in get_args(annotation) and len(options) == 1:
        return _inner(options[0])
    return annotation
