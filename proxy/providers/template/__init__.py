"""Upstreams whose JSON is their author's own: YAML says what is sent and where the answer stands.

Used by plain Ray Serve deployments and plain BentoML endpoints.

Source: reference/upstreams.md §10.6, §11.3, §11.4.
"""
