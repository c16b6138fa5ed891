"""Answers kept for calls that ask the same, and calls in flight that share one answer."""
