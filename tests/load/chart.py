"""The samples of a soak as a table and as one page of charts that needs nothing else."""

import csv
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from tests.load.samples import LEFT, Sample, lag_between

WIDTH, HEIGHT, LEFT_MARGIN, ABOVE, BOTTOM = 720, 150, 56, 8, 20
COLOURS = ("#1f6feb", "#d1730a", "#2a8f4f")
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Octet under load</title>
<style>body{{font:14px system-ui,sans-serif;margin:24px;max-width:760px;color:#1c2128}}
h2{{font-size:15px;margin:20px 0 2px}}svg{{width:100%;height:auto}}
text{{font:11px system-ui,sans-serif;fill:#57606a}}pre{{background:#f3f4f6;padding:12px;
white-space:pre-wrap}}b{{font-weight:600}}</style><h1>Octet under load</h1><pre>{told}</pre>{charts}</html>
"""
Line = tuple[str, Callable[[Sample], float]]


def _gauge(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample.gauges[name]


CHARTS: Sequence[tuple[str, Sequence[Line]]] = (
    ("Resident set, MiB", [("rss", lambda sample: sample.rss_mib)]),
    ("Open files", [("files", lambda sample: sample.open_files), ("sockets", lambda sample: max(sample.sockets, 0))]),
    (
        "Streams and connections",
        [(name, _gauge(name)) for name in ("open_streams", "caller_connections", "upstream_connections")],
    ),
    ("Slots and queue", [(name, _gauge(name)) for name in ("slots", "queued")]),
    ("Tasks", [("tasks", lambda sample: max(sample.tasks, 0))]),
)


def write_table(samples: Sequence[Sample], path: Path) -> None:
    """One line of CSV for each look."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        fields = ("rss_mib", "open_files", "sockets", "tasks", "calls")
        writer.writerow(["seconds", *fields, *LEFT, "lag_p50_seconds", "lag_p99_seconds"])
        for before, each in pairwise([samples[0], *samples]):
            lags = [lag_between(before, each, share) for share in (0.5, 0.99)]
            values = [getattr(each, name) for name in fields]
            writer.writerow([f"{each.at:.1f}", *values, *(each.gauges[name] for name in LEFT), *lags])


def write_page(samples: Sequence[Sample], told: Sequence[str], warm_up: float, path: Path) -> None:
    """All charts below what was told."""
    charts = [_chart(title, samples, lines, warm_up) for title, lines in CHARTS]
    pairs = list(pairwise(samples))
    lags = [lag_between(*pair, 0.99) * 1000 for pair in pairs]
    rates = [(after.calls - before.calls) / (after.at - before.at) for before, after in pairs]
    times = [after.at for _, after in pairs]
    charts.append(_drawn("Loop lag, 99th percentile, ms", times, [("lag", lags)], warm_up))
    charts.append(_drawn("Calls per second", times, [("calls", rates)], warm_up))
    path.write_text(_PAGE.format(told=escape("\n".join(told)), charts="".join(charts)))


def _chart(title: str, samples: Sequence[Sample], lines: Sequence[Line], warm_up: float) -> str:
    drawn = [(name, [value(each) for each in samples]) for name, value in lines]
    return _drawn(title, [each.at for each in samples], drawn, warm_up)


def _drawn(title: str, times: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], warm_up: float) -> str:
    end = max([*times, 1.0])
    top = max([1.0, *(value for _, values in lines for value in values)]) * 1.05
    legend = " ".join(
        f'<b style="color:{colour}">{escape(name)}</b>' for (name, _), colour in zip(lines, COLOURS, strict=False)
    )
    body = "".join(_frame(end, top, warm_up))
    for (_, values), colour in zip(lines, COLOURS, strict=False):
        points = " ".join(f"{_x(at, end):.1f},{_y(value, top):.1f}" for at, value in zip(times, values, strict=True))
        body += f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
    size = f"0 -{ABOVE} {WIDTH} {ABOVE + HEIGHT + BOTTOM}"
    return f'<h2>{escape(title)}</h2>{legend}<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{body}</svg>'


def _frame(end: float, top: float, warm_up: float) -> Iterator[str]:
    wide = _x(min(warm_up, end), end) - LEFT_MARGIN
    yield f'<rect x="{LEFT_MARGIN}" y="0" width="{wide:.1f}" height="{HEIGHT}" fill="#eef1f4"/>'
    for share in (0, 0.5, 1):
        value, minute = top * share, end * share / 60
        yield f'<line x1="{LEFT_MARGIN}" x2="{WIDTH}" y1="{_y(value, top)}" y2="{_y(value, top)}" stroke="#d0d7de"/>'
        yield f'<text x="{LEFT_MARGIN - 6}" y="{_y(value, top) + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        anchor = ("start", "middle", "end")[round(share * 2)]
        yield f'<text x="{_x(end * share, end)}" y="{HEIGHT + 15}" text-anchor="{anchor}">{minute:.4g} min</text>'


def _x(at: float, end: float) -> float:
    return LEFT_MARGIN + (WIDTH - LEFT_MARGIN) * at / end


def _y(value: float, top: float) -> float:
    return HEIGHT * (1 - value / top)
