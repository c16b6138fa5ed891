"""The request on the normalised wire: nulls stripped, unknown fields named and dropped."""

from proxy.call import Call
from proxy.openai_format.encoding import encode
from proxy.openai_format.parameters import PARAMETERS, PASS, Column
from proxy.openai_format.request import read_fields

COLUMN = Column({parameter.name: PASS for parameter in PARAMETERS})


def normalise_request(call: Call, model: str) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and the names of what it no longer holds; values are the upstream's to judge."""
    fields = {name: value for name, value in read_fields(call.body).items() if value is not None}
    body, dropped = COLUMN.settle(fields)
    body["model"] = model
    if "max_completion_tokens" in body:
        body.pop("max_tokens", None)
    if call.stream:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return encode(body), tuple(dropped)
