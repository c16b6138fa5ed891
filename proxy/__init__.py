"""Octet: an OpenAI-compatible sidecar in front of many kinds of LLM upstreams."""

__version__ = "0.1.0"
