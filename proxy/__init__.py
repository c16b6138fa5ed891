"""Octet: an OpenAI-compatible sidecar in front of eight kinds of LLM upstreams."""
