"""Asks of the locks what can be asked: are they sound, does the index stand by them, is a vulnerability known?

What cannot be asked is a failure, and says so: silence is no answer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploy.supply.locks import EVERYTHING, ROOT, RUNTIME, Pin, faults, read_lock

SERVICES = ("osv", "pypi")  # of advisories, as pip-audit calls them
# Known to be vulnerable for years: a service that does not know of it knows of nothing.
CONTROL = f"jinja2==2.4.1 --hash=sha256:{'0' * 64}\n"
PATIENCE_SECONDS = 120.0
_TOOLS = ROOT / ".tools" / "bin"


class Unanswered(Exception):
    """Somebody could not be asked."""


def run(program: Path | str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A program's end; raises Unanswered when it is missing, or takes too long."""
    try:
        return subprocess.run(  # noqa: S603
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unanswered(f"{Path(program).name}: {type(error).__name__}") from error


def check_locks() -> list[str]:
    """What is wrong with the lock files themselves."""
    return faults()


def check_index() -> list[str]:
    """Releases that were taken back, and files that the index does not have any more, or has with another content."""
    found = []
    for lock in (RUNTIME, EVERYTHING):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "lock.txt"
            told = run(
                Path(sys.executable).with_name("uv"), "pip", "compile", "--no-deps", "--universal", "--python-version",
                "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--color", "never",
                "--refresh", str(ROOT / lock), "--output-file", str(output),
            )  # fmt: skip
            if told.returncode:
                raise Unanswered(f"the index: {_last_line(told.stderr)}")
            offered = {(pin.name, pin.version): pin.hashes for pin in read_lock(output.read_text())[0]}
        found += [f"{lock}: {line}" for line in told.stderr.splitlines() if "yanked" in line]
        found += [
            f"{lock}: {fault}" for pin in read_lock((ROOT / lock).read_text())[0] for fault in _gone(pin, offered)
        ]
    return found


def _gone(pin: Pin, offered: Mapping[tuple[str, str], frozenset[str]]) -> list[str]:
    hashes = offered.get((pin.name, pin.version))
    if hashes is None:
        return [f"{pin.name} {pin.version} is not offered any more"]
    return (
        [] if pin.hashes <= hashes else [f"{pin.name} {pin.version} has files with other hashes than the locked ones"]
    )


def check_advisories() -> list[str]:
    """Known vulnerabilities of all that is locked, from the first service that can be asked and knows of any."""
    unanswered = []
    for service in SERVICES:
        try:
            if not advisories(service, CONTROL):
                raise Unanswered("it does not know of an old vulnerability, and is not believed")
            return advisories(service, (ROOT / EVERYTHING).read_text())
        except Unanswered as error:
            unanswered.append(f"{service}: {error}")
    raise Unanswered("; ".join(unanswered))


def advisories(service: str, lock: str) -> list[str]:
    """What a service knows of a lock; raises Unanswered when it knows not of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder) / "lock.txt", Path(folder) / "told.json"
        file.write_text(lock)
        ran = run(
            _TOOLS / "pip-audit", "--vulnerability-service", service, "--requirement", str(file), "--disable-pip",
            "--require-hashes", "--format", "json", "--output", str(output), "--progress-spinner", "off",
        )  # fmt: skip
        if not output.exists():
            raise Unanswered(_last_line(ran.stderr))
        told: list[dict[str, Any]] = json.loads(output.read_text())["dependencies"]
    skipped = [each["name"] for each in told if "skip_reason" in each]
    if skipped or not told:
        raise Unanswered(f"it knows nothing of {', '.join(skipped[:3]) or 'anything'}{' ...' if skipped[3:] else ''}")
    return [f"{each['name']} {each['version']}: {found['id']}" for each in told for found in each["vulns"]]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


CHECKS: Mapping[str, Callable[[], list[str]]] = {
    "locks": check_locks,
    "index": check_index,
    "advisories": check_advisories,
}


def main() -> int:
    """1 when something is wrong, or could not be asked."""
    parser = argparse.ArgumentParser(prog="audit", description=__doc__.partition("\n")[0])
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(CHECKS)}; default: all")
    chosen = parser.parse_args().checks or list(CHECKS)
    if unknown := set(chosen) - set(CHECKS):
        parser.error(f"there is no check {', '.join(sorted(unknown))}")
    status = 0
    for name in chosen:
        try:
            found = CHECKS[name]()
        except Unanswered as error:
            sys.stdout.write(f"audit: {name}: could not be asked: {error}\n")
            status = 1
            continue
        sys.stdout.write(f"audit: {name}: {'not well' if found else 'well'}\n")
        sys.stdout.write("".join(f"  {fault}\n" for fault in found))
        status = 1 if found else status
    return status


if __name__ == "__main__":
    sys.exit(main())
