"""The dashboard of Octet as code; `python -m grafana.build` writes it."""
