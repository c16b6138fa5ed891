"""Simulated upstreams: one port that speaks every dialect, judges what it is sent, and fails on request."""

from proxy.simulator.behaviour import Behaviour, BehaviourError
from proxy.simulator.report import Report
from proxy.simulator.server import Simulator

__all__ = ["Behaviour", "BehaviourError", "Report", "Simulator"]
