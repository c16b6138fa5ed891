"""What is looked at when something is being searched for: collapsed until then."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import series
from grafana.queries import CALLS, HERE, ROUTE, ROUTE_UPSTREAM, UPSTREAM, UPSTREAM_MODEL, of_octet, rate, target

_CALLS = Row(
    "Details: calls",
    [
        series(
            "Calls by route", "Calls per second, by the route that served them; none is a call that no route took. "
            "Normal is what your applications ask for.",
            [target(rate("octet_calls_total", CALLS, "route"), "{{route}}")], "reqps", stacked=True,
            links=looks.ONLY_ROUTE, empty="No calls",
        ),
        series(
            "Calls by model", "Calls per second, by the model of the target that answered; other is one that is not in "
            "the configuration. Normal is what the routes' weights say.",
            [target(rate("octet_calls_total", CALLS, "model"), "{{model}}")], "reqps", stacked=True,
            links=looks.ONLY_MODEL, empty="No calls",
        ),
        series(
            "Where the time goes", "Seconds that calls spend in each phase until their answer or first content, per "
            "second: how many calls are in it on average. Normal is nearly all upstream. body: callers send slowly; "
            "queue: limits; connect: connections are not kept.",
            [target(rate("octet_phase_seconds_total", HERE, "phase"), "{{phase}}")], "short", stacked=True,
            empty="No calls",
        ),
        series(
            "Refused before they were calls", "Requests per second that were refused at the door, by reason: a bad "
            "key, a body too large, too many connections. Normal is none. Many: a caller is configured wrongly, or "
            "somebody tries.",
            [target(rate("octet_refusals_total", HERE, "reason"), "{{reason}}")], "reqps", stacked=True,
            empty="None refused",
        ),
        series(
            "Where token counts come from", "Tokens per second: counted by the provider, by a stream that was cut "
            "(partial), or estimated by us. Normal is nearly all provider. Many others: cost is less sure.",
            [target(rate("octet_tokens_total", UPSTREAM_MODEL, "source"), "{{source}}")], "count:tokens/s",
            stacked=True, empty="No tokens",
        ),
        series(
            "Bodies in flight", "What bodies of calls in flight take in memory. Normal is small. Above "
            "server.max_buffered_bytes calls are refused with 503: images and long conversations at once.",
            [target(f"sum(octet_buffered_bytes{{{HERE}}})", "bodies")], "bytes", empty="No sidecar",
        ),
    ],
    collapsed=True,
)  # fmt: skip

_COPIES = Row(
    "Details: second attempts and copies",
    [
        series(
            "Second attempts", "Hedges per second, by route: won, the second was quicker; lost, the first was; failed, "
            "both. Normal is a few, most of them won; mostly lost: after_seconds is too short.",
            [target(rate("octet_hedges_total", ROUTE, "route", "outcome"), "{{route}} {{outcome}}")], "reqps",
            stacked=True, links=looks.ONLY_ROUTE, empty="No second attempts", size=(8, 8),
        ),
        series(
            "Tokens wasted by second attempts", "Estimated tokens per second of attempts that lost to another: the "
            "price of hedging. Normal is a few percent of the token usage.",
            [target(rate("octet_hedge_wasted_tokens_total", UPSTREAM, "upstream"), "{{upstream}}")],
            "count:tokens/s", stacked=True, links=looks.ONLY_UPSTREAM, empty="None wasted", size=(8, 8),
        ),
        series(
            "Copies of calls", "Mirrored calls per second, by upstream and outcome; their answers are thrown away. "
            "Normal is ok. dropped: more at once than mirror.concurrent.",
            [
                target(
                    rate("octet_mirrored_total", ROUTE_UPSTREAM, "upstream", "outcome"), "{{upstream}} {{outcome}}"
                )
            ],
            "reqps", stacked=True, links=looks.ONLY_UPSTREAM, empty="No mirrors", size=(8, 8),
        ),
    ],
    collapsed=True,
)  # fmt: skip

_RUNNING = Row(
    "Details: running",
    [
        series(
            "Reloads", "Looks at a new configuration, per second, by what came of it. Normal is loaded when you deploy "
            "one, and no failed.",
            [target(rate("octet_config_reloads_total", HERE, "result"), "{{result}}")], "ops", empty="No sidecar",
            overrides=[
                looks.colour("loaded", "blue"), looks.colour("unchanged", "text"), looks.colour("failed", "red"),
            ],
        ),
        series(
            "Workers", "Worker processes that serve, of each sidecar with server.workers above 1. Normal is that "
            "number.",
            [target(f"sum by (instance) (octet_workers{{{HERE}}})", "{{instance}}")], "short", decimals=0,
            links=looks.ONLY_INSTANCE, empty="No sidecar has workers",
        ),
        series(
            "Workers replaced", "Workers per second that died, or answered nothing for 15 s, and were replaced. Normal "
            "is none. Otherwise: memory (the system ends what takes too much), or a report to us.",
            [target(rate("octet_worker_restarts_total", HERE, "instance"), "{{instance}}")], "ops",
            links=looks.ONLY_INSTANCE, empty="No sidecar has workers",
        ),
        series(
            "Open files by process", "Files and connections of each process, the ten with most. Normal is about two "
            "for each stream and a few dozen. Steady growth under even load is worth a report to us.",
            [
                target(
                    f"topk(10, max by (instance) ({of_octet(f'process_open_fds{{{HERE}}}')}))", "{{instance}}"
                )
            ],
            "short", decimals=0, links=looks.ONLY_INSTANCE, empty="Not known on this system",
        ),
    ],
    collapsed=True,
)  # fmt: skip

ROWS = (_CALLS, _COPIES, _RUNNING)
