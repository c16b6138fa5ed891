"""The request of the exact wire: the caller's bytes, with only what must differ in its place.

Source: DESIGN.md §3, "Exact wire".
"""

from collections.abc import Mapping
from types import MappingProxyType

from proxy.call import Call
from proxy.openai_format.encoding import encode
from proxy.openai_format.members import find_members

_USAGE_ASKED = b'{"include_usage":true}'


def splice_request(
    call: Call, model: str, values: Mapping[str, bytes] = MappingProxyType({}), *, ask_usage: bool = True
) -> bytes:
    """The caller's bytes with the target's model, and with usage asked for in a stream.

    Args:
        values: of members that are in the body, what stands there instead.
    """
    if not values and model == call.model and (call.wants_usage or not (ask_usage and call.stream)):
        return call.body
    edits = [(call.members[name], value) for name, value in values.items()]
    if model != call.model:
        edits.append((call.members["model"], encode(model)))
    if ask_usage and call.stream and not call.wants_usage:
        if "stream_options" not in call.members:
            end = len(call.body.rstrip()[:-1].rstrip())  # of the last member, before the closing brace
            edits.append((slice(end, end), b',"stream_options":' + _USAGE_ASKED))
        else:
            options = call.members["stream_options"]
            edits.append((options, _with_usage(call.body[options])))
    return splice(call.body, edits)


def _with_usage(options: bytes) -> bytes:
    if options == b"null":
        return _USAGE_ASKED
    members = find_members(options)
    asked = members.get("include_usage")
    if asked is not None:
        return splice(options, [(asked, b"true")])
    if not members:
        return _USAGE_ASKED
    end = max(member.stop for member in members.values())
    return splice(options, [(slice(end, end), b',"include_usage":true')])


def splice(text: bytes, edits: list[tuple[slice, bytes]]) -> bytes:
    """Replace spans that do not overlap."""
    for place, value in sorted(edits, key=lambda edit: edit[0].start, reverse=True):
        text = text[: place.start] + value + text[place.stop :]
    return text
