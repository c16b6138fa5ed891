"""Programs that tests use and Python does not bring: of `make tools`, or of the system."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

TOOLS = Path(__file__).parent.parent / ".tools"
STRICT = ("CI", "REQUIRE_OPS")  # environment variables that make a missing program a failure


def tool(*names: str) -> str:
    """The path of a program that goes by one of these names; the test is skipped without it, or fails where STRICT."""
    places = os.pathsep.join((str(TOOLS / "bin"), os.environ.get("PATH", os.defpath)))
    found = next((path for name in names if (path := shutil.which(name, path=places)) is not None), None)
    return found if found is not None else missing(" or ".join(names))


def missing(what: str) -> NoReturn:
    """Skip the test for want of it, or fail where everything is to be there."""
    reason = f"{what} is not installed (make tools brings some programs)"
    if any(os.environ.get(name) for name in STRICT):
        pytest.fail(f"{reason}, and {' or '.join(STRICT)} is set")
    pytest.skip(reason)
