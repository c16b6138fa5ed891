"""Load from many users at once, judged at the end: `make load`, and for long: `make soak`."""
