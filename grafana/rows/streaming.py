"""Streams beside JSON calls: how many, how long, how they flow."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_until, heatmap, series
from grafana.queries import HERE, UPSTREAM, increase, quantile, quantiles, rate, target
from grafana.thresholds import RESPONSE_SECONDS

ROW = Row(
    "Streaming",
    [
        series(
            "Streaming vs non-streaming", "Calls that ended, per second, as streams and as JSON. Normal is what your "
            "applications do; a sudden change is a new release of one of them.",
            [target(rate("octet_call_duration_seconds_count", UPSTREAM, "mode"), "{{mode}}")], "reqps", stacked=True,
            overrides=looks.MODES, empty="No calls",
        ),
        series(
            "Response time p95 by mode", "How long the slower calls took, streams and JSON apart. Normal is steady. "
            "Streams may last: judge them by their first token. OctetSlowCalls fires when JSON calls are above the red "
            "line, 5 s.",
            [
                target(
                    quantile(0.95, "octet_call_duration_seconds", UPSTREAM, "mode"), "{{mode}}", exemplar=True
                )
            ],
            "s", steps=good_until(RESPONSE_SECONDS), overrides=looks.MODES, empty="No calls",
        ),
        series(
            "Time between tokens", "Between the contents of a stream, as they came from upstream: how evenly it "
            "speaks. Normal is 10 to 100 ms, and p99 a few times p50. A p99 of seconds reads as stuttering: the "
            "upstream is overloaded, or something between buffers.",
            quantiles("octet_inter_token_seconds", UPSTREAM), "s", overrides=looks.QUANTILES, empty="No streams",
        ),
        heatmap(
            "First tokens, spread", "How many streams had their first content after how long. Normal is one narrow "
            "hill for each model. A second one above it is cold starts, a queue, or calls that were repeated.",
            increase("octet_first_token_seconds_bucket", UPSTREAM, "le"), scheme="Blues",
        ),
        series(
            "Streams in progress", "Streams being answered, and connections of callers with or without a call, now. "
            "Normal rises and falls with the request rate. Streams that only grow are callers that do not read, or an "
            "upstream that does not end its answers.",
            [
                target(f"sum(octet_open_streams{{{HERE}}})", "open streams"),
                target(f"sum(octet_caller_connections{{{HERE}}})", "callers' connections"),
            ],
            "short", decimals=0, empty="No sidecar",
            overrides=[looks.colour("open streams", "orange"), looks.colour("callers' connections", "blue")],
        ),
        series(
            "Callers that hung up", "Callers that left before the end, per second, by how far their call was. Normal "
            "is a few in stream: people who have read enough. Many in first_token or json are callers whose time-out "
            "is too short for the model, and whose tokens are paid for nothing.",
            [target(rate("octet_hangups_total", HERE, "phase"), "{{phase}}")], "reqps", stacked=True,
            empty="Nobody has hung up",
        ),
    ],
)  # fmt: skip
