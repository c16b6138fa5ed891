"""What callers say of the cache is obeyed; what makes no sense is passed over, or asks for a new answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cache.control import USUAL, Control, control_of
from proxy.call import NEVER

LONGEST = 8190  # bytes of a header that the server takes


@pytest.mark.parametrize(
    ("header", "control"),
    [
        (None, USUAL),
        ("", USUAL),
        ("  ", USUAL),
        (",,", USUAL),
        ("no-cache", Control(read=False)),
        ("NO-CACHE", Control(read=False)),
        ("no-store", Control(read=False, write=False)),
        ("No-Store, max-age=5", Control(read=False, write=False, max_age=5.0)),
        ("no-cache, no-store", Control(read=False, write=False)),
        ("max-age=60", Control(max_age=60.0)),
        ("Max-Age=60", Control(max_age=60.0)),
        ('max-age="60"', Control(max_age=60.0)),
        ("max-age = 60", Control(max_age=60.0)),
        ("max-age=0", Control(max_age=0.0)),
        ("max-age=007", Control(max_age=7.0)),
        ("max-age", Control(max_age=0.0)),
        ("max-age=", Control(max_age=0.0)),
        ("max-age=,no-cache", Control(read=False, max_age=0.0)),
        ("max-age=-1", Control(max_age=0.0)),
        ("max-age=1.5", Control(max_age=0.0)),
        ("max-age=1e3", Control(max_age=0.0)),
        ("max-age=soon", Control(max_age=0.0)),
        ("max-age=6 0", Control(max_age=0.0)),
        ("max-age=\u0661", Control(max_age=0.0)),
        ("max-age=\u00b2", Control(max_age=0.0)),
        ("max-age=" + "9" * 400, Control(max_age=NEVER)),
        ("only-if-cached", Control(only_kept=True)),
        ("only-if-cached, max-age=3", Control(only_kept=True, max_age=3.0)),
        ("only-if-cached,no-cache", Control(read=False, only_kept=True)),
        ("\tno-cache ,\tmax-age=1\t", Control(read=False, max_age=1.0)),
        ("private, stale-while-revalidate=5, no-transform, max-stale", USUAL),
        ("no-cached, xno-store, no-storex, s-max-age=1", USUAL),
        ('extension="no-store, no-cache"', USUAL),
        ('extension="a, b", no-cache', Control(read=False)),
        ('extension="not closed, no-store', Control(read=False, write=False)),
        ("foo bar, no-store", Control(read=False, write=False)),
        ("=, no-cache", Control(read=False)),
        ("no-cache=field", Control(read=False)),
    ],
)
def test_what_a_header_says(header: str | None, control: Control) -> None:
    """Each directive, alone and beside others, as it may be written and as it may not."""
    assert control_of(header) == control


@given(header=st.text(max_size=80) | st.text("no-storecachmax=\"', \t\\", max_size=80))
def test_any_header(header: str) -> None:
    """Whatever it says, it says something."""
    control = control_of(header)
    assert control.write or not control.read
    assert 0 <= control.max_age <= NEVER


def test_the_longest_headers() -> None:
    """Hundreds of them are read before a test's patience ends: their length is no power over the process."""
    for of in ("{}(", "a{}(", " {}(", "a= {}(", '"{}(', 'a="{}', "a,{}"):
        for filling in ("a", " ", ",", "=", '"', "a=", "a ="):
            header = of.format(filling * (LONGEST // len(filling)))
            assert all(control_of(header).max_age == NEVER for _ in range(10))
