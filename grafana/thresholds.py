"""Where good ends: the same numbers as in the alerts, so that a red panel and a message mean one thing."""

ERROR_RATE = 0.1  # OctetHighErrorRate
RESPONSE_SECONDS = 5.0  # OctetSlowCalls, p95
HIT_RATE = 0.3  # OctetLowCacheHitRate
POOL = 0.8  # OctetConnectionPoolNearlyFull
MEMORY = 0.9  # OctetMemoryNearLimit
LOOP_LAG_SECONDS = 0.1  # OctetLoopLag
BUDGET = 0.8  # OctetBudgetNearlyUsed
