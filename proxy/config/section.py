"""What every part of a configuration is: a mapping of known keys, frozen."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of known keys; frozen."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )
