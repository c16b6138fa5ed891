"""A new file is noticed however it came there; what has not changed changes nothing."""

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, Mistake
from proxy.reload import Ready, Reloader
from proxy.simulator import Simulator
from proxy.sources import FileSource
from proxy.telemetry import Telemetry
from tests.reload.conftest import StartLive, one, written
from tests.waiting import until


async def test_a_file_edited_in_place(live: StartLive, simulator: Simulator) -> None:
    """What was written over the old content is in force soon."""
    sidecar = await live(one(simulator), watch=True)
    sidecar.write(one(simulator, name="two"))
    await until(lambda: sidecar.generation == 2)
    assert (await sidecar.told("two"))[0] == 200
    assert (await sidecar.told("one"))[0] == 404


async def test_a_file_replaced_by_rename(live: StartLive, simulator: Simulator) -> None:
    """As editors and `mv` do it; also when the file is an older one."""
    sidecar = await live(one(simulator), watch=True)
    for number, name in enumerate(("two", "three"), 2):
        new = sidecar.path.with_suffix(".new")
        new.write_bytes(written(one(simulator, name=name)))
        os.utime(new, (1, 1))
        new.rename(sidecar.path)
        await until(lambda number=number: sidecar.generation == number)  # type: ignore[misc]
        assert (await sidecar.told(name))[0] == 200


async def test_a_config_map_is_swapped(live: StartLive, simulator: Simulator, tmp_path: Path) -> None:
    """As the kubelet does it: the file's link stays, the directory's link is re-pointed, the old directory goes."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(version: str, name: str) -> None:
        (mount / version).mkdir()
        (mount / version / "octet.yaml").write_bytes(written(one(simulator, name=name)))
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").rename(mount / "..data")

    publish("..2026_1", "one")
    (mount / "octet.yaml").symlink_to("..data/octet.yaml")
    sidecar = await live("", watch=True, path=mount / "octet.yaml")
    for number in (2, 3, 4):
        publish(f"..2026_{number}", f"route-{number}")
        (mount / f"..2026_{number - 1}" / "octet.yaml").unlink()
        (mount / f"..2026_{number - 1}").rmdir()
        await until(lambda number=number: sidecar.generation == number)  # type: ignore[misc]
        assert (await sidecar.told(f"route-{number}"))[0] == 200
    assert await sidecar.metric("octet_config_last_reload_successful") == 1


async def test_a_swap_with_the_same_content_is_none(live: StartLive, simulator: Simulator) -> None:
    """A file written anew, byte for byte the same, is no new configuration, and no news."""
    sidecar = await live(one(simulator))
    for _ in range(3):
        told = await sidecar.reload(one(simulator))
        assert (told["ok"], told["generation"], told["changes"]) == (True, 1, [])
    assert await sidecar.metric("octet_config_reloads_total", result="unchanged") == 3
    assert await sidecar.metric("octet_config_reloads_total", result="loaded") == 1
    assert (await sidecar.ask("GET", "/admin/config"))[1]["reloads"] == []


async def test_a_reload_by_hand(live: StartLive, simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """POST /admin/reload answers when it is in force, says what changed, and logs the same."""
    caplog.set_level(logging.INFO, "octet")
    sidecar = await live(one(simulator))
    new = one(simulator, name="two", settings={"api_key": "sk-new"})
    told = await sidecar.reload(new)
    changes = ["upstreams.a altered (api_key)", "routes.one removed", "routes.two added"]
    assert told["changes"] == changes
    assert (told["ok"], told["generation"], told["because"]) == (True, 2, "/admin/reload")
    assert [record.message for record in caplog.records if "generation 2" in record.message] == [
        f"configuration generation 2 (/admin/reload): {', '.join(changes)}"
    ]
    status, shown = await sidecar.ask("GET", "/admin/config")
    assert (status, shown["generation"], shown["source"]) == (200, 2, str(sidecar.path))
    assert shown["reloads"] == [told]
    assert await sidecar.metric("octet_config_generation") == 2
    assert (await sidecar.ask("GET", "/admin/reload"))[0] == 405
    assert (await sidecar.ask("POST", "/admin/config"))[0] == 405


async def test_a_comment_is_no_new_key(live: StartLive, simulator: Simulator) -> None:
    """An edit that means nothing is not told as altered keys or certificates."""
    sidecar = await live(one(simulator))
    told = await sidecar.reload(written(one(simulator)) + b"# a remark\n")
    assert told["ok"]
    assert "keys or certificates altered" not in told["changes"]


class Told:
    """A source that says one thing after another; the last for ever."""

    name = "told"

    def __init__(self, file: Path, *texts: bytes) -> None:
        self.texts = list(texts)
        self._file = FileSource(str(file))

    def read(self) -> bytes:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if text == b"gone":
            raise ConfigError([Mistake(self.name, None, (), "cannot be read: gone")])
        return text

    def parse(self, text: bytes) -> Config:
        return self._file.parse(text)


class AtOnce:
    """A configuration that is ready at once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.needs_restart: list[str] = []

    async def commit(self, generation: int) -> None:
        pass


@pytest.fixture
async def reloaders(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Reloader]]:
    """To be closed at the end; they look all the time."""
    monkeypatch.setattr("proxy.reload.LOOK_SECONDS", 0.001)
    made = list[Reloader]()
    yield made
    for each in made:
        await each.close()


def reloader(source: Told, good: bytes) -> Reloader:
    async def prepare(config: Config) -> Ready:
        return AtOnce(config)

    return Reloader(source, source.parse(good), good, prepare, Telemetry(id).reloads)


async def test_a_file_mended_while_it_is_refused(
    simulator: Simulator, reloaders: list[Reloader], tmp_path: Path
) -> None:
    """A file that becomes good just as its bad content is being judged is not taken for the bad one."""
    good, bad, mended = (written(one(simulator, name=name)) for name in ("one", "b", "mended"))
    bad = bad.replace(b"targets", b"tragets")
    source = Told(tmp_path / "octet.yaml", bad, bad, bad, mended)  # two looks, the reading, and then the mended one
    made = reloader(source, good)
    reloaders.append(made)
    made.start()
    await until(lambda: len(source.texts) == 1)
    await until(lambda: made.generation == 2, 2)


async def test_what_is_half_written_is_not_taken(
    simulator: Simulator, reloaders: list[Reloader], tmp_path: Path
) -> None:
    """Only what two looks agree on is read: a file being written shows no mistakes."""
    good, new = written(one(simulator)), written(one(simulator, name="two"))
    halves = [new[: len(new) * part // 20] for part in range(20)]
    source = Told(tmp_path / "octet.yaml", *halves, new)
    made = reloader(source, good)
    reloaders.append(made)
    made.start()
    await until(lambda: made.generation == 2)
    assert [attempt["ok"] for attempt in made.describe()["reloads"]] == [True]
