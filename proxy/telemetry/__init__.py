"""What is told of calls: metrics, and one access line each.

Source: DESIGN.md §9.
"""

from proxy.telemetry.access_log import LineWriter
from proxy.telemetry.crew_counts import CrewCounts
from proxy.telemetry.lag import LagWatch
from proxy.telemetry.metrics import Telemetry
from proxy.telemetry.recent import Told
from proxy.telemetry.record import AttemptTrace, CallRecord, Trace, Traces, Try
from proxy.telemetry.reload_counts import ReloadCounts

__all__ = [
    "AttemptTrace",
    "CallRecord",
    "CrewCounts",
    "LagWatch",
    "LineWriter",
    "ReloadCounts",
    "Telemetry",
    "Told",
    "Trace",
    "Traces",
    "Try",
]
