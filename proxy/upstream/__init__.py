"""HTTP towards the provider: UpstreamRequest -> status and bytes."""
