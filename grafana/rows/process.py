"""The sidecar itself: what it needs, what it adds, what it runs."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_from, good_until, series, stat, table
from grafana.queries import HERE, UPSTREAM, instant, of_octet, quantiles, rate, target
from grafana.thresholds import LOOP_LAG_SECONDS, MEMORY

_MEMORY = of_octet(f"process_resident_memory_bytes{{{HERE}}}")
_LIMIT = f"octet_memory_limit_bytes{{{HERE}}}"
_SHARE = f"process_resident_memory_bytes{{{HERE}}} / on (job, instance) {_LIMIT}"
_START = of_octet(f"process_start_time_seconds{{{HERE}}}")
_OPEN = of_octet(f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}")
_CPU = f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])"
_BY_INSTANCE = "{} by (instance) ({})"

ROW = Row(
    "Process",
    [
        stat(
            "Memory of its limit", "The fullest process, of what its container may use. Red from 90 %, like "
            "OctetMemoryNearLimit: at 100 % the system ends it, and its streams with it. Look at the cache's size and "
            "at bodies in flight, or raise the limit.",
            target(f"max({_SHARE})"), "percentunit", steps=good_until(MEMORY), size=(4, 4), graph=True,
            empty="No limit", decimals=0,
        ),
        stat(
            "Open files", "The process with most open files, of what the system allows it; a stream takes two. Normal "
            "is below 50 %. Near 100 % new connections fail: raise the limit of open files, or add sidecars.",
            target(f"max({_OPEN})"), "percentunit", steps=good_until(0.8), size=(4, 4), graph=True,
            empty="Not known here", decimals=1,
        ),
        stat(
            "Last reload", "Whether the configuration that was read last is in force, in all processes. Failed: it was "
            "bad, and the one before serves on; OctetConfigReloadFailed fires. What is wrong stands in the log and in "
            "GET /admin/config.",
            target(f"min(octet_config_last_reload_successful{{{HERE}}})"), "none",
            mappings=looks.two_states("Failed", "Good"), steps=good_from(1), size=(4, 4),
            empty="No sidecar", decimals=0,
        ),
        stat(
            "Configuration", "Counts the configurations that have been in force since the start; of several processes, "
            "the largest. It grows by one with each reload, which the blue marks show.",
            target(f"max(octet_config_generation{{{HERE}}})"), "none", size=(4, 4), empty="No sidecar",
            decimals=0,
        ),
        stat(
            "Redis", "Whether Redis is there for all processes that use it. Down: circuits and limits are each "
            "process's own for a while, and the cache is memory alone; calls go on. OctetRedisDegraded fires.",
            target(f"min(octet_redis_up{{{HERE}}} unless octet_redis_configured{{{HERE}}} == 0)"), "none",
            mappings=looks.two_states("Down", "Up"), steps=good_from(1), size=(4, 4),
            empty="Not configured", decimals=0,
        ),
        stat(
            "Log lines lost", "Access lines per second that the reader of standard output was too slow for. Normal is "
            "none. Calls do not suffer, but the log has gaps: look at what collects it.",
            target(rate("octet_access_lines_lost_total", HERE)), "cps", steps=good_until(0.001), size=(4, 4),
            empty="None",
        ),
        series(
            "Process memory", "Resident memory of each process, the ten largest, and the container's limit, dashed. "
            "OctetMemoryNearLimit fires above 90 % of it, the red line. Normal settles with the cache full. Steady "
            "growth under even load is worth a report to us.",
            [
                target(f"topk(10, {_BY_INSTANCE.format('max', _MEMORY)})", "{{instance}}"),
                target(f"min({_LIMIT})", "limit"),
                target(f"{MEMORY} * min({_LIMIT})", "alert, at 90 %"),
            ],
            "bytes", overrides=[looks.dashed("limit", "text"), looks.dashed("alert, at 90 %", "red")],
            links=looks.ONLY_INSTANCE, empty="Not known on this system",
        ),
        series(
            "CPU", "Cores in use by each process, the ten busiest; a process without workers cannot use more than one. "
            "Normal is below 0.7. Above it, loop lag grows and all calls wait: more workers, or more sidecars.",
            [
                target(f"topk(10, {_BY_INSTANCE.format('sum', of_octet(_CPU))})", "{{instance}}"),
            ],
            "none", decimals=2, links=looks.ONLY_INSTANCE, empty="Not known on this system",
        ),
        series(
            "Event loop lag", "How late the event loop comes to what is due. Normal is a few milliseconds. "
            "OctetLoopLag fires at p99 above the red line: the process has too little CPU (a limit that throttles?), "
            "or bodies are so large that reading them takes long.",
            quantiles("octet_loop_lag_seconds", HERE), "s", steps=good_until(LOOP_LAG_SECONDS),
            overrides=looks.QUANTILES, empty="No sidecar",
        ),
        series(
            "Overhead", "Our own share of the time to the answer or first content: all but waiting for callers, places "
            "and upstreams. Normal is below a millisecond at p50. When it grows with the loop lag, CPU is short.",
            quantiles("octet_overhead_seconds", UPSTREAM), "s", overrides=looks.QUANTILES, empty="No calls",
        ),
        table(
            "Processes", "What runs: each process with its version, time since its start, memory, and the "
            "configuration that it has. Normal is one version, and one configuration where all started together.",
            [
                instant(f"max by (instance, pod, version) (octet_build_info{{{HERE}}})", format="table"),
                instant(f"max by (instance, pod) (time() - ({_START}))", format="table"),
                instant(f"max by (instance, pod) ({_MEMORY})", format="table"),
                instant(f"max by (instance, pod) (octet_config_generation{{{HERE}}})", format="table"),
            ],
            "none", sort="Running", size=(24, 6), empty="No sidecar",
            transformations=[
                {"id": "merge", "options": {}},
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {"Time": True, "Value #A": True}, "includeByName": {},
                        "indexByName": {
                            "instance": 0, "pod": 1, "version": 2, "Value #B": 3, "Value #C": 4, "Value #D": 5,
                        },
                        "renameByName": {
                            "instance": "Instance", "pod": "Pod", "version": "Version", "Value #B": "Running",
                            "Value #C": "Memory", "Value #D": "Configuration",
                        },
                    },
                },
            ],
            overrides=[
                {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
                for name, unit in (("Running", "dtdurations"), ("Memory", "bytes"))
            ],
        ),
    ],
)  # fmt: skip
