"""Call -> Route: which rule serves a call, and its targets in the order to try. Pure."""

from proxy.routing.choice import Choice, Passed, Sight, Skipped
from proxy.routing.router import DIRECT, Router

__all__ = ["DIRECT", "Choice", "Passed", "Router", "Sight", "Skipped"]
