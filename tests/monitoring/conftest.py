"""What these tests need of other programs: skipped where one is missing, a failure where CI or REQUIRE_OPS is set."""

from tests.monitoring.browser import browser, look
from tests.programs import tool
from tests.reload.conftest import live

__all__ = ["browser", "live", "look", "tool"]
