"""What several sidecars share through Redis. Loaded only where one is configured: its client library is large."""

from proxy.shared_state.connect import PATIENCE_SECONDS, Client, connect
from proxy.shared_state.state import Errand, SharedState, end_tasks, kind_of

__all__ = ["PATIENCE_SECONDS", "Client", "Errand", "SharedState", "connect", "end_tasks", "kind_of"]
