"""Three sidecars, a real Redis and upstreams under load while faults come and go; then every call is accounted for."""
