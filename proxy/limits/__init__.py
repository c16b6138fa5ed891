"""Call -> a held place, or when to come back: of callers and of upstreams."""
