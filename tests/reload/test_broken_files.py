"""Files that cannot be used: each mistake has its place and a remedy, and nothing but that is seen of them."""

import logging
import re
from collections.abc import Callable

import pytest

from proxy.__main__ import main
from proxy.simulator import Simulator
from tests.reload.conftest import Live, StartLive, one, written
from tests.waiting import until

Edit = Callable[[str], str | bytes]
MIB = 1024 * 1024


def swap(old: str, new: str) -> Edit:
    """Write something else in one place."""

    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def add(more: str) -> Edit:
    """Write more at the end, below the routes."""
    return lambda text: text + more


TWO = "- {name: x, match: {model: x}, targets: [{upstream: a}], fallback: [{route: y}]}\n"
THREE = "- {name: y, match: {model: y}, targets: [{upstream: a}], fallback: [{route: x}]}\n"
PLACED = {  # what is wrong, and what the message holds beside its place
    "a typo in a section": (swap("routes:", "rotues:"), 'did you mean "routes"?'),
    "a typo in a key": (swap("base_url:", "base_ulr:"), 'did you mean "base_url"?'),
    "a typo in a provider": (swap("provider: openai", "provider: opnai"), 'did you mean "openai"?'),
    "a number that is a text": (swap("drain_seconds: 2.0", "drain_seconds: soon"), "must be a number"),
    "a text that is a list": (swap("api_key: sk-ours", "api_key: [1, 2]"), "must be text"),
    "a list that is a mapping": (swap("  - upstream: a", "    upstream: a"), "must be a list"),
    "a negative size": (swap("drain_seconds: 2.0", "drain_seconds: -2"), "must be"),
    "not a number at all": (swap("drain_seconds: 2.0", "drain_seconds: 1e999"), "must be"),
    "fallbacks in a circle": (add(TWO + THREE), "leads in a circle: x -> y -> x"),
    "a fallback to itself": (add(TWO.replace("route: y", "route: x")), "leads in a circle: x -> x"),
    "a variable that is not set": (swap("sk-ours", "${NO_SUCH}"), "set it, or write ${NO_SUCH:-default}"),
    "a variable without an end": (swap("sk-ours", '"${NO_SUCH"'), "write ${NAME}"),
    "two routes of one name": (add("- {name: one, match: {model: x}, targets: [{upstream: a}]}\n"), "the same name"),
    "a route in the shade": (add("- {name: x, match: {model: one}, targets: [{upstream: a}]}\n"), "can never match"),
    "a glob without its end": (swap("model: one", 'model: "[one"'), "[[] stands for a plain ["),
    "a range that runs backwards": (swap("model: one", 'model: "[z-a]"'), "runs backwards: z-a"),
    "no regular expression": (swap("model: one", 'model_regex: "(one"'), "is no regular expression"),
    "an unknown upstream": (swap("upstream: a", "upstream: aa"), 'did you mean "a"?'),
    "tabs": (swap("  a:", "\ta:"), "indent with spaces"),
    "a key that stands twice": (swap("    api_key: sk-ours\n", "    api_key: x\n    api_key: y\n"), "stands twice"),
    "an alias": (swap("api_key: sk-ours", "api_key: *gone"), "write the value out"),
    "a bomb": (lambda _: "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "aliases (*name) are not supported"),
    "a bomb of merges": (lambda text: "x: &x {<<: *x}\n" + text, "aliases (*name) are not supported"),
    "deep nesting": (lambda text: text + "cache: " + "[" * 10_000, "nested more than 50 deep"),
    "a tag": (swap("api_key: sk-ours", "api_key: !!python/object:os.system x"), "write the plain value"),
    "two documents": (lambda text: f"{text}---\n{text}", "one document"),
    "a quote without its end": (swap("sk-ours", '"sk-ours'), "not YAML"),
    "no upstreams": (lambda _: "upstreams: {}\n", "must name at least one upstream"),
    "a list for a file": (lambda _: "- server\n- upstreams\n", "must be a mapping with the keys"),
    "a word for a file": (lambda _: "octet\n", "must be a mapping with the keys"),
    "a port that is none": (swap("listen: 127.0.0.1:0", "listen: 127.0.0.1:99999"), "write HOST:PORT"),
    "a key that is no text": (swap("    api_key: sk-ours", "    ? [api_key]\n    : sk-ours"), "plain words"),
    "no CA file": (swap("api_key: sk-ours", "tls: {ca_file: /nowhere}"), 'there is no file "/nowhere"'),
    "an empty key": (swap("api_key: sk-ours", 'api_key: ""'), "must not be empty"),
}
UNPLACED = {  # where there is no line to name
    "not UTF-8": (lambda text: text.encode() + b"# \xff\xfe\n", "the file is not UTF-8 (byte"),
    "UTF-16": (lambda text: text.encode("utf-16"), "the file is not UTF-8"),
    "ten megabytes": (lambda text: text + "# " + "x" * 10 * MIB, "the file is larger than 1048576 bytes"),
    "empty": (lambda _: "", "must be a mapping with the keys"),
    "only remarks": (lambda _: "# nothing\n", "must be a mapping with the keys"),
    "zeroes": (lambda _: b"\0" * 100, "not YAML"),
    "control signs": (lambda text: text + "# \x07\n", "not YAML"),
}


async def refused(sidecar: Live, content: str | bytes, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The mistakes of a file, which has done nothing else; then the good file again, which is still in force."""
    good, before = sidecar.path.read_bytes(), sidecar.generation
    caplog.clear()
    told = await sidecar.reload(content)
    mistakes: list[str] = told["mistakes"]
    assert (told["ok"], told["generation"], sidecar.generation) == (False, before, before)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all(mistake in record.message for mistake in mistakes)
    assert await sidecar.metric("octet_config_last_reload_successful") == 0
    async with (
        sidecar.http.get(f"{sidecar.url}/readyz") as data,
        sidecar.http.get(f"{sidecar.admin_url}/readyz") as admin,
    ):
        assert (data.status, admin.status) == (200, 200)
    assert (await sidecar.told())[0] == 200
    again = await sidecar.reload(good)
    assert (again["ok"], again["generation"]) == (True, before)
    assert await sidecar.metric("octet_config_last_reload_successful") == 1
    return mistakes


def checked(sidecar: Live, content: str | bytes, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `octet check` says of it."""
    good = sidecar.path.read_bytes()
    sidecar.write(content)
    assert main(["check", str(sidecar.path)]) == 2
    sidecar.path.write_bytes(good)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("case", [*PLACED, *UNPLACED])
async def test_a_broken_file(
    live: StartLive,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    """Reload and `octet check` say the same, with place and remedy; one log entry holds it; the old one serves on."""
    sidecar = await live(one(simulator))
    edit, remedy = (PLACED | UNPLACED)[case]
    content = edit(written(one(simulator)).decode())
    mistakes = await refused(sidecar, content, caplog)
    assert checked(sidecar, content, capsys) == mistakes
    place = rf"{re.escape(str(sidecar.path))}" + (r":\d+:\d+: " if case in PLACED else r"(:\d+:\d+)?: ")
    assert all(re.match(place, mistake) for mistake in mistakes), mistakes
    assert any(remedy in mistake for mistake in mistakes), mistakes


async def test_many_mistakes_are_one_entry(
    live: StartLive, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """All mistakes of a file are told at once, in the file's order."""
    sidecar = await live(one(simulator))
    text = written(one(simulator)).decode()
    for old, new in (("provider: openai", "provider: opnai"), ("drain_seconds: 2.0", "drain_seconds: x")):
        text = text.replace(old, new)
    mistakes = await refused(sidecar, text + "- {match: {model: z}, targets: [{upstream: zz}]}\n", caplog)
    lines = [int(match[1]) for each in mistakes if (match := re.search(r"\.yaml:(\d+):", each))]
    assert len(lines) == 3
    assert lines == sorted(lines)


async def test_a_directory_in_place_of_the_file(
    live: StartLive, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when a mount goes wrong: it is told, the old one serves on, and the file may come back."""
    sidecar = await live(one(simulator), watch=True)
    good = sidecar.path.read_bytes()
    sidecar.path.unlink()
    sidecar.path.mkdir()
    await until(lambda: len(sidecar.app.reloader._attempts) > 0)
    told = sidecar.app.reloader.describe()["reloads"][0]
    assert any("cannot be read: Is a directory" in mistake for mistake in told["mistakes"])
    assert main(["check", str(sidecar.path)]) == 2
    assert capsys.readouterr().out.splitlines() == list(told["mistakes"])
    assert (await sidecar.told())[0] == 200
    sidecar.path.rmdir()
    sidecar.write(good.replace(b"name: one", b"name: uno"))
    await until(lambda: sidecar.generation == 2)
    assert await sidecar.metric("octet_config_last_reload_successful") == 1


async def test_a_bad_file_is_told_once(live: StartLive, simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """However long a bad file lies there, it is one log entry; another bad one is another."""
    sidecar = await live(one(simulator), watch=True)
    looks, source = 0, sidecar.app.reloader._source
    reads = source.read

    def look() -> bytes | None:
        nonlocal looks
        looks += 1
        return reads()

    source.read = look  # type: ignore[method-assign]  # counted, not changed
    for number, content in enumerate(("upstreams: 1\n", "upstreams: 2\n"), 1):
        sidecar.write(content)
        await until(lambda number=number: len(errors(caplog)) == number)  # type: ignore[misc]
        seen = looks
        await until(lambda seen=seen: looks > seen + 10)  # type: ignore[misc]
        assert len(errors(caplog)) == number


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]
