"""Keys of bodies, and bodies of all kinds."""

import json
from typing import Any

from hypothesis import strategies as st

from proxy.cache.key import LEFT_OUT, Key, key_of, read
from proxy.call import Json

PLACE = b"place"
NAMES = (
    *LEFT_OUT,
    "model",
    "messages",
    "tools",
    "response_format",
    "temperature",
    "seed",
    "stop",
    "n",
    "extra",
    "other",
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6, allow_nan=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)


def key(body: bytes | Json, *, route: str = "r", tenant: str = "t", place: bytes = PLACE) -> Key | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = read(raw)
    return None if fields is None else key_of(raw, fields, route, tenant, place)


def sure(body: bytes | Json, **more: Any) -> bytes:
    found = key(body, **more)
    assert found is not None
    return found.digest
