"""Several processes that share one port, and the parent that keeps them: `server.workers`."""
