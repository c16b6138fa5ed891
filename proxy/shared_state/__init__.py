"""What several sidecars share through Redis. Loaded only where one is configured: its client library is large."""

from proxy.shared_state.client import PATIENCE_SECONDS, TROUBLE, Client, close, connect
from proxy.shared_state.state import Errand, SharedState, end_tasks, kind_of

__all__ = [
    "PATIENCE_SECONDS",
    "TROUBLE",
    "Client",
    "Errand",
    "SharedState",
    "close",
    "connect",
    "end_tasks",
    "kind_of",
]
