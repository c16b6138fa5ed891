"""How much is tried: in the suite the same cases each time, in a long run (`make fuzz`) others, and more of them."""

import os

from hypothesis import HealthCheck, settings

FACTOR = "FUZZ_FACTOR"  # environment variable: so many times the suite's cases, drawn anew
_factor = int(os.environ.get(FACTOR, "0"))


def tries(count: int) -> settings:
    """Settings for a test that tries so many cases in the suite."""
    return settings(
        max_examples=count * max(1, _factor),
        derandomize=not _factor,
        database=None,
        print_blob=bool(_factor),
        suppress_health_check=list(HealthCheck),
    )
