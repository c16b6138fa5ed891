"""What is shipped is what is locked, tested and agreed: checks of the lock files, the bill of materials, the audit."""

import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.supply import audit
from deploy.supply.licences import fault_of, licence_of
from deploy.supply.locks import (
    LOCKS,
    ROOT,
    RUNTIME,
    Pin,
    faults,
    faults_between,
    faults_of_lock,
    faults_of_runtime,
    installed,
    read_lock,
    wanted_of,
)
from tests.programs import tool

HASH = "0" * 64
GOOD = f"a-b==1.0 \\\n    --hash=sha256:{HASH}\nc==2.0.post1 ; python_version < '3.12' \\\n    --hash=sha256:{HASH}\n"


def runtime() -> list[Pin]:
    return read_lock((ROOT / RUNTIME).read_text())[0]


def test_the_locks_are_sound() -> None:
    """Names, versions and hashes, and nothing else; all that is wanted; what is shipped is tested, and agreed."""
    assert faults() == []
    assert len(runtime()) > 20


def test_every_lock_is_looked_at() -> None:
    """A lock that nobody checks would be one that anything can stand in."""
    locks = {path for path in ROOT.glob("deploy/**/*.txt") if "--hash=" in path.read_text()} | {
        ROOT / "requirements.txt"
    }
    assert {str(path.relative_to(ROOT)) for path in locks} == set(LOCKS)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("--index-url https://index.example/simple\n", "holds a line that is no name"),
        ("a @ git+https://git.example/a\n", "holds a line that is no name"),
        ("-e .\n", "holds a line that is no name"),
        ("https://files.example/a.whl\n", "holds a line that is no name"),
        (f"a>=1 \\\n    --hash=sha256:{HASH}\n", "holds a line that is no name"),
        ("a==1 \\\n    --hash=md5:0\n", "holds a line that is no name"),
        (f"# from a mirror\na==1 \\\n    --hash=sha256:{HASH}\n", "holds a line that is no name"),
        ("a==1\n", "a has no hash"),
        (f"a==1rc1 \\\n    --hash=sha256:{HASH}\n", "a 1rc1 is no finished release"),
        (f"b==1 \\\n    --hash=sha256:{HASH}\na==1 \\\n    --hash=sha256:{HASH}\n", "not in order"),
        (f"a==1 \\\n    --hash=sha256:{HASH}\n" * 2, "a stands twice, and not for different systems"),
    ],
)
def test_what_no_lock_may_hold(text: str, fault: str) -> None:
    """Addresses, repositories, files, loose versions and lines without hashes are told."""
    (told,) = faults_of_lock(text, [])
    assert fault in told


def test_a_good_lock() -> None:
    """Markers and later builds of a release are nothing to be told, missing and unfitting ones are."""
    assert list(faults_of_lock(GOOD, [Requirement("A_b>=1"), Requirement("c")])) == []
    both = f"{GOOD}c==3 ; python_version >= '3.12' \\\n    --hash=sha256:{HASH}\n"
    assert list(faults_of_lock(both, [Requirement("c>=2")])) == []
    told = list(faults_of_lock(GOOD, [Requirement("a-b>=2"), Requirement("d")]))
    assert told == ["a-b 1.0 is locked, and >=2 is wanted", "d is wanted, and not locked"]


def test_what_is_shipped_is_what_is_tested() -> None:
    """Another version, another file or a package more is told."""
    other = GOOD.replace("==1.0", "==1.1").replace(HASH, "1" * 64)
    assert list(faults_between(GOOD, GOOD)) == []
    assert len(list(faults_between(GOOD, other))) == 2
    assert list(faults_between(GOOD, GOOD.replace("c==", "d=="))) == ["c is shipped, and not tested"]


class Package(Distribution):
    """A package that is not installed."""

    def __init__(self, metadata: str) -> None:
        self._text = f"Metadata-Version: 2.4\nName: a\nVersion: 1\n{metadata}\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Any:
        return Path(str(path))


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT", "MIT"),
        ("License-Expression: Apache-2.0 AND MIT", "Apache-2.0 AND MIT"),
        ("License-Expression: GPL-3.0-only OR MIT", "GPL-3.0-only OR MIT"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
    ],
)
def test_licences_that_are_agreed(metadata: str, licence: str) -> None:
    """However a package names its licence; of alternatives one is enough."""
    assert licence_of("a", Package(metadata)) == licence
    assert fault_of("a", Package(metadata)) is None


@pytest.mark.parametrize(
    "metadata", ["", "License: own", "License-Expression: GPL-3.0-only", "License-Expression: MIT AND SSPL-1.0"]
)
def test_licences_that_are_not(metadata: str) -> None:
    """None, one that cannot be read, and one that we do not ship are told."""
    assert fault_of("a", Package(metadata)) is not None


def test_what_nothing_needs_is_told() -> None:
    """A package that came in by mistake does not stay."""
    known = {"a": Package("License-Expression: MIT\nRequires-Dist: c; extra == 'x'")}
    pins = read_lock(GOOD.replace("a-b", "a"))[0]
    assert list(faults_of_runtime(pins, [Requirement("a")], known)) == ["c is shipped, and nothing needs it"]
    assert list(faults_of_runtime(pins, [Requirement("a[x]")], known)) == []


def test_every_dependency_is_imported() -> None:
    """What pyproject.toml wants at run time, our code uses."""
    provides: dict[str, set[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            provides.setdefault(canonicalize_name(name), set()).add(module)
    provides["opentelemetry-sdk"] = {"opentelemetry.sdk"}
    provides["opentelemetry-exporter-otlp-proto-http"] = {"opentelemetry.exporter.otlp.proto.http"}
    text = "\n".join(path.read_text() for path in (ROOT / "proxy").rglob("*.py"))
    used = set(re.findall(r"^ *(?:import|from) ([\w.]+)", text, re.MULTILINE))
    for wanted in wanted_of(ROOT, RUNTIME):
        modules = provides[canonicalize_name(wanted.name)]
        found = any(f"{name}.".startswith(f"{module}.") for module in modules for name in used)
        assert found, f"{wanted.name} is wanted, and nothing imports it"


def test_the_bill_of_materials(tmp_path: Path) -> None:
    """It is CycloneDX 1.6 and names every package of the runtime lock, its version, hashes, licence and needs."""
    tool("cyclonedx-py")
    packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    command: list[str | Path] = [
        ROOT / ".tools" / "bin" / "python",
        ROOT / "deploy/supply/sbom.py",
        "--packages",
        packages,
        "--output",
    ]
    ran = subprocess.run([*command, tmp_path / "sbom.json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    bill = json.loads((tmp_path / "sbom.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "octet"
    components = {component["name"]: component for component in bill["components"]}
    assert {(name, component["version"]) for name, component in components.items()} == {
        (pin.name, pin.version) for pin in runtime()
    }
    for pin in runtime():
        component = components[pin.name]
        hashes = {each["content"] for place in component["externalReferences"] for each in place["hashes"]}
        assert hashes == pin.hashes
        assert component["purl"] == f"pkg:pypi/{pin.name}@{pin.version}"
        assert pin.name not in installed() or component["licenses"][0]["expression"]
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert "pkg:pypi/multidict@" in " ".join(needs[components["aiohttp"]["purl"]])
    reached, waiting = set[str](), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        reached.add(here := waiting.pop())
        waiting += [each for each in needs[here] if each not in reached]
    assert {component["purl"] for component in bill["components"]} <= reached


@pytest.fixture
def advisories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pip-audit of ours: it answers with what stands in told.json, and fails without it."""
    program = tmp_path / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        "told = json.loads((pathlib.Path(__file__).parent / 'told.json').read_text())\n"
        "lock = pathlib.Path(sys.argv[sys.argv.index('--requirement') + 1]).read_text()\n"
        "found = told['control'] if 'jinja2==2.4.1' in lock else told['lock']\n"
        "pathlib.Path(sys.argv[sys.argv.index('--output') + 1]).write_text(json.dumps({'dependencies': found}))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(audit, "_TOOLS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["audit", "advisories"])
    return tmp_path


OLD = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-1"}]}
WELL = {"name": "a", "version": "1", "vulns": []}
ILL = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-2"}]}
SKIPPED = {"name": "b", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("told", "status", "says"),
    [
        (None, 1, "could not be asked"),
        ({"control": [OLD], "lock": [WELL]}, 0, "advisories: well"),
        ({"control": [OLD], "lock": [ILL, WELL]}, 1, "a 1: PYSEC-2"),
        ({"control": [OLD], "lock": [WELL, SKIPPED]}, 1, "could not be asked: osv: it knows nothing of b"),
        ({"control": [OLD], "lock": []}, 1, "could not be asked: osv: it knows nothing of anything"),
        ({"control": [{**OLD, "vulns": []}], "lock": [WELL]}, 1, "it does not know of an old vulnerability"),
    ],
)
def test_silence_is_no_answer(
    advisories: Path, told: Any, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit is well only where a service that knows something has told of every package that nothing is known."""
    if told is not None:
        (advisories / "told.json").write_text(json.dumps(told))
    assert audit.main() == status
    assert says in capsys.readouterr().out


def test_without_the_program_nothing_is_asked(
    advisories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing pip-audit fails the audit."""
    monkeypatch.setattr(audit, "_TOOLS", advisories / "nowhere")
    assert audit.main() == 1
    assert "could not be asked: osv: pip-audit: FileNotFoundError" in capsys.readouterr().out


def test_what_the_index_has_taken_back() -> None:
    """A release that is gone, and one whose files are others, are told; more files than were locked are not."""
    pin = Pin("a", "1", frozenset({"1", "2"}))
    assert audit._gone(pin, {("a", "1"): frozenset({"1", "2", "3"})}) == []
    assert audit._gone(pin, {("a", "1"): frozenset({"1", "3"})}) != []
    assert audit._gone(pin, {("a", "2"): pin.hashes}) != []
