"""Builds the image and the compose stack for real, runs them for real, and says what it saw: see docs/image.md.

Nothing but the standard library and the programs of a Docker engine.
"""
