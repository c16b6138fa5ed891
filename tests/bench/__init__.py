"""What the sidecar costs, measured beside references and peers: `make bench`."""
