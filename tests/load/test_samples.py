"""What a soak sees is read, judged and drawn."""

import csv
import math
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.load import chart
from tests.load.samples import LEFT, Sample, account, judge, lag_between, left, sample_of, slope_per_hour

PAGE = """# HELP octet_open_streams Streams being answered now.
octet_open_streams 3.0
octet_connections{upstream="a",state="active"} 2.0
octet_connections{upstream="b",state="idle"} 5.0
octet_slots_in_use{scope="caller",name="x"} 1.0
octet_calls_total{route="r",outcome="ok"} 7.0
octet_calls_total{route="r",outcome="cut"} 1.0
octet_loop_lag_seconds_bucket{le="0.01"} 90.0
octet_loop_lag_seconds_bucket{le="+Inf"} 100.0
process_resident_memory_bytes 6.291456e+07
process_open_fds 17.0
"""


def sample(at: float, rss: float = 60.0, sockets: int = 4, **gauges: int) -> Sample:
    return Sample(
        at, rss, 17, sockets, 2, round(at), {**dict.fromkeys(LEFT, 0), **gauges}, {math.inf: at, 0.01: at / 2}
    )


def soak(*rss: float) -> list[Sample]:
    """Looks, a minute between them."""
    return [sample(60.0 * minute, each) for minute, each in enumerate(rss)]


def broken(samples: list[Sample], rested: Sample, most: float = 10.0) -> list[str]:
    return [check.text for check in judge(samples, rested, 60.0, most) if not check.held]


def test_a_page_is_read() -> None:
    """Labels are summed, the lag's buckets kept."""
    found = sample_of(PAGE, 1.0, sockets=9)
    assert (found.rss_mib, found.open_files, found.sockets, found.tasks, found.calls) == (60.0, 17, 9, -1, 8)
    assert (found.gauges["open_streams"], found.gauges["upstream_connections"], found.gauges["slots"]) == (3, 7, 1)
    assert found.lag == {0.01: 90.0, math.inf: 100.0}


def test_the_metrics_exist() -> None:
    """What is read is what docs/metrics.md lists; a name that nobody has would be 0 for ever."""
    names = {
        "octet_connections", "octet_slots_in_use", "octet_queue_length", "octet_open_streams",
        "octet_caller_connections", "octet_flights", "octet_buffered_bytes", "octet_loop_lag_seconds",
    }  # fmt: skip
    documented = Path(__file__).parent.parent.parent.joinpath("docs", "metrics.md").read_text()
    assert not {name for name in names if f"`{name}`" not in documented}


def test_a_slope() -> None:
    """Least squares: one outlier does not decide."""
    assert slope_per_hour(soak(60, 61, 62, 63)) == pytest.approx(60.0)
    assert slope_per_hour(soak(60, 60, 60)) == 0
    assert slope_per_hour([]) == 0


def test_lag_between_two_looks() -> None:
    """The share's upper bound; nothing, when there was no look at it."""
    before, after = sample(0.0), sample(100.0)
    assert lag_between(before, after, 0.5) == 0.01
    assert lag_between(before, after, 0.99) == math.inf
    assert lag_between(after, after, 0.5) == 0


def test_a_flat_soak_is_good() -> None:
    """The warm-up does not count."""
    samples = soak(30, 60, 60.1, 60, 60.1)
    assert broken(samples, samples[0]) == []


def test_a_rising_one_is_not() -> None:
    """More than the slope allowed, and more than what may be chance."""
    samples = soak(30, 60, 61, 62, 63)
    assert broken(samples, samples[0]) == ["resident set: +60.00 MiB an hour (+3.00 MiB in all), at most 10"]
    assert broken(samples, samples[0], most=60.1) == []
    assert broken(soak(60, 60, 60.5, 61), samples[0]) == []


def test_a_soak_that_was_too_short_is_not_good() -> None:
    """Two looks after the warm-up are the least."""
    assert broken(soak(60, 60), sample(9.0)) == ["looks after the warm-up of 60 s: 1"]


def test_what_is_left_is_named() -> None:
    """Sockets, streams and slots; fewer than before is fine."""
    samples = soak(60, 60, 60)
    rested = sample(200.0, sockets=6, slots=1, open_streams=2)
    assert broken(samples, rested) == ["left after the rest: open_streams 2, slots 1, sockets 2"]
    assert left(sample(0.0, sockets=9, slots=2), rested) == {"open_streams": 2}


def test_the_account() -> None:
    """Before, most, at the end, after a rest."""
    samples = [sample(0.0, 50.0, 4), sample(60.0, 61.0, 40), sample(120.0, 60.0, 30)]
    told = list(account(samples, sample(150.0, 59.0, 4)))
    assert told[0] == "sockets: 4 before, at most 40, 30 at the end, 4 after a rest"
    assert told[3] == "resident set: 50.0 MiB before, 60.0 at the end, 59.0 rested"
    assert told[-1] == "calls: 150"


def test_what_cannot_be_counted_is_left_out() -> None:
    """Sockets of a sidecar on another machine."""
    samples = [sample(0.0, sockets=-1), sample(60.0, sockets=-1)]
    assert not [line for line in account(samples, samples[0]) if line.startswith("sockets")]


def test_the_table(tmp_path: Path) -> None:
    """One line for each look."""
    chart.write_table(soak(60, 61, 62), tmp_path / "soak.csv")
    with (tmp_path / "soak.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rss_mib"]) for row in rows] == [60, 61, 62]
    assert rows[1]["lag_p50_seconds"] == "0.01"


class Drawn(HTMLParser):
    """The lines of a page, and whether anything is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.fetched: list[Mapping[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "polyline":
            self.lines.append((given["points"] or "").split())
        if {"src", "href"} & set(given):
            self.fetched.append(given)


def test_the_page(tmp_path: Path) -> None:
    """Every line has a point for each look, and what was told stands above; nothing comes from elsewhere."""
    chart.write_page(soak(60, 61, 62), ["a < b"], 60.0, tmp_path / "soak.html")
    text = (tmp_path / "soak.html").read_text()
    drawn = Drawn(text)
    assert [len(points) for points in drawn.lines] == [3] * 9 + [2] * 2
    assert (drawn.fetched, "a &lt; b" in text) == ([], True)
