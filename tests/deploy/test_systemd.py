"""The systemd unit: what systemd says of it, and what it promises together with the code."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from proxy import commands
from proxy.config.model import Server
from tests.monitoring.servers import DEPLOY
from tests.programs import tool

UNIT = DEPLOY / "systemd" / "octet.service"
PROGRAM = "/opt/octet/bin/octet"
MOST_EXPOSED = 20  # tenths; systemd 252 says 14, an unhardened unit has 96
GRACE_SECONDS = 5.0  # beyond the drain: to write the last lines and go


@pytest.fixture(scope="module")
def settings() -> dict[str, list[str]]:
    """All values of every key."""
    found = defaultdict[str, list[str]](list)
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[name].append(value)
    return dict(found)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as on a machine where the program is there."""
    program, unit = tmp_path / "octet", tmp_path / UNIT.name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit.write_text(UNIT.read_text().replace(PROGRAM, str(program)))
    return unit


def analysed(*arguments: str) -> tuple[int, str]:
    """What systemd-analyze says."""
    ran = subprocess.run([tool("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_systemd_understands_every_line(installed: Path) -> None:
    """`systemd-analyze verify` has nothing to say; of unknown keys it says so, and still succeeds."""
    assert analysed("verify", "--man=no", str(installed)) == (0, "")


@pytest.mark.parametrize("mistake", ["ProtectSistem=strict", "KillSignal=SIGNONE", "RestrictAddressFamilies=AF_NONE"])
def test_a_mistake_would_be_told(installed: Path, mistake: str) -> None:
    """The test above can fail."""
    installed.write_text(installed.read_text().replace("[Service]\n", f"[Service]\n{mistake}\n"))
    assert f"{installed}:" in analysed("verify", "--man=no", str(installed))[1]


def test_little_is_exposed() -> None:
    """`systemd-analyze security` gives a low score, and a high one without the hardening."""
    threshold = f"--threshold={MOST_EXPOSED}"
    code, told = analysed("security", "--offline=true", "--no-pager", threshold, str(UNIT))
    assert code == 0, told


def test_much_would_be_exposed_without(installed: Path) -> None:
    """The test above can fail."""
    hardening = re.compile(r"^(Protect|Restrict|SystemCall|Capability).*\n", re.MULTILINE)
    installed.write_text(hardening.sub("", installed.read_text()))
    assert analysed("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(installed))[0] == 1


def test_the_command_line_is_the_one_of_everywhere(settings: dict[str, list[str]]) -> None:
    """As in the image and the manifests, but that the admin side stays on loopback; and it is one that octet takes."""
    (line,) = settings["ExecStart"]
    program, *arguments = line.split()
    assert program == PROGRAM
    assert arguments == ["serve", "/etc/octet/octet.yaml", "--admin", "127.0.0.1:8081"]
    options = commands._parser().parse_args(arguments)
    assert (options.config, options.admin.port, options.listen) == ("/etc/octet/octet.yaml", 8081, None)


def test_there_is_time_to_drain(settings: dict[str, list[str]]) -> None:
    """SIGTERM goes to the main process alone, which is given the whole drain and a little more."""
    server = Server()
    (seconds,) = map(float, settings["TimeoutStopSec"])
    assert seconds >= server.drain_delay_seconds + server.drain_seconds + GRACE_SECONDS
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["KillMode"] == ["mixed"]
    assert settings["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_it_is_not_started_again_for_a_mistake(settings: dict[str, list[str]]) -> None:
    """A bad configuration ends with a code of its own, and that is the one that is left alone."""
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == [str(commands.EXIT_MISTAKES)]


def test_there_are_files_enough_for_every_connection(settings: dict[str, list[str]]) -> None:
    """Each stream takes two: the caller's connection and the upstream's."""
    (files,) = map(int, settings["LimitNOFILE"])
    assert files > 2 * Server().max_connections


def test_keys_are_where_the_comment_says(settings: dict[str, list[str]]) -> None:
    """Each credential has the path that octet.yaml is told to name, and none is in the environment."""
    names = [value.partition(":")[0] for value in settings["LoadCredential"]]
    paths = re.findall(r"api_key_file: (\S+?)`", UNIT.read_text())
    assert paths == [f"/run/credentials/{UNIT.name}/{name}" for name in names]
    assert not {"Environment", "EnvironmentFile"} & set(settings)
