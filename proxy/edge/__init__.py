"""HTTP towards the caller: endpoints, streams, errors, and the admin side."""
