"""The cache: how much it spares."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_from, series
from grafana.queries import HERE, ROUTE, ROUTE_UPSTREAM, or_zero, per_hour, rate, share, target
from grafana.thresholds import HIT_RATE

_LOOKS = "octet_cache_lookups_total"
_JOINED = or_zero(rate("octet_flights_joined_total", HERE))
_LOOKED = f'{HERE}, result!="untellable"'  # which is a second note about a look
_EVERY = rate(_LOOKS, f'{_LOOKED}, tier="memory"')  # each cacheable call looks there, and first

_HITS = f'{HERE}, result="hit"'

SERVED = share(f"({or_zero(rate(_LOOKS, _HITS))}) + ({_JOINED})", _EVERY)

ROW = Row(
    "Cache",
    [
        series(
            "Cache hit rate", "Share of cacheable calls that cost nothing: kept in memory or Redis, or joined to the "
            "same call in flight; and of each tier, what it found of what it was asked. Redis is only asked for what "
            "memory lacks. Normal is what it was last week. OctetLowCacheHitRate fires below the line, 30 %: calls "
            "differ more than it seems (a time or a name in the prompt), ttl_seconds is short, or memory is small and "
            "evicts.",
            [
                target(SERVED, "all, joined too"),
                target(
                    share(rate(_LOOKS, _HITS, "tier"), rate(_LOOKS, _LOOKED, "tier")),
                    "{{tier}}",
                ),
            ],
            "percentunit", steps=good_from(HIT_RATE), ratio=True, empty="No cacheable calls",
            overrides=[looks.colour("all, joined too", "green", lineWidth=3), looks.colour("memory", "blue"),
                       looks.colour("redis", "purple")],
        ),
        series(
            "Looks into the cache", "Per second, by tier and by what was found. hit and miss are normal. From Redis, "
            "timeout, error and skipped mean that it is slow or away, and memory serves alone; foreign is another "
            "version's; untellable could not be told in the form asked for.",
            [target(rate(_LOOKS, HERE, "tier", "result"), "{{tier}} {{result}}")], "ops", stacked=True,
            empty="No cacheable calls",
            overrides=[looks.colour("memory hit", "green"), looks.colour("memory miss", "light-blue"),
                       looks.colour("redis hit", "purple"), looks.colour("redis miss", "light-purple")],
        ),
        series(
            "Memory of the cache", "What kept answers take, of all processes chosen. Normal is level, just below "
            "cache.memory.max_bytes of each, when the cache is well used. Level and a low hit rate: it is too small.",
            [target(f"sum(octet_cache_bytes{{{HERE}}})", "kept answers")], "bytes", empty="No sidecar", size=(8, 8),
        ),
        series(
            "Answers in the cache", "Answers kept in memory, and calls in flight that others may join. Normal is a "
            "number that settles. After a start it begins at zero and the hit rate with it.",
            [
                target(f"sum(octet_cache_entries{{{HERE}}})", "kept"),
                target(f"sum(octet_flights{{{HERE}}})", "in flight"),
            ],
            "short", decimals=0, empty="No sidecar", size=(8, 8),
        ),
        series(
            "Answers kept and let go", "Per second: kept by tier (with what hindered it), and gone from memory: age is "
            "normal, room means that memory is full and that others were worth more. Many by room and a low hit rate: "
            "raise cache.memory.max_bytes.",
            [
                target(rate("octet_cache_writes_total", HERE, "tier", "result"), "kept, {{tier}} {{result}}"),
                target(rate("octet_cache_evictions_total", HERE, "reason"), "gone, {{reason}}"),
            ],
            "ops", empty="Nothing kept yet", size=(8, 8),
        ),
        series(
            "Calls joined", "Calls per second that waited for the answer to the same call in flight, by route. Normal "
            "is few; many at one moment are callers that all start with the same question.",
            [target(rate("octet_flights_joined_total", ROUTE, "route"), "{{route}}")], "reqps", stacked=True,
            links=looks.ONLY_ROUTE, empty="No calls joined",
        ),
        series(
            "Cost saved per hour", "What kept and joined answers would have cost, where prices are known, at the pace "
            "of each moment. Normal follows the hit rate. Compare with the cost per provider.",
            [target(per_hour("octet_cost_saved_usd_total", ROUTE_UPSTREAM, "upstream"), "{{upstream}}")],
            "currencyUSD", stacked=True, links=looks.ONLY_UPSTREAM, empty="Nothing saved, or no prices", decimals=2,
        ),
    ],
)  # fmt: skip
