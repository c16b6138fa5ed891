"""What every process of ours does with itself."""

import gc
from collections.abc import Iterator, Sequence

import pytest

from proxy import __main__, commands
from proxy.process import run


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.enable()


def test_no_garbage_is_looked_for_while_a_command_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded stays."""

    def command(_: Sequence[str]) -> int:
        assert not gc.isenabled()
        return 7

    monkeypatch.setattr(commands, "main", command)
    assert __main__.main(["serve"]) == 7


def test_garbage_is_collected_while_it_runs() -> None:
    """Whoever runs for long collects it, however it was loaded."""

    async def work() -> int:
        return int(gc.isenabled())

    gc.disable()
    assert run(work()) == 1
