"""Our own wheel and source archive: what they hold, and that they are the same whoever builds them."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from deploy.supply.locks import ROOT

SOURCES = ("proxy", "config", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore")
DATA = {"proxy/edge/status.html", "proxy/demo.yaml"}
ABOUT = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def build(source: Path, target: Path) -> dict[str, bytes]:
    """The packages, by name; no network is needed."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", target],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The packages as built in a copy of the sources, with what must not be in them lying about."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        here = ROOT / name
        if here.is_dir():
            shutil.copytree(
                here, source / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
            )
        else:
            shutil.copy(here, source / name)
    for name in (".env", "tests/test_x.py", "deploy/x.yaml", "proxy/__pycache__/x.pyc", "proxy/.env", "secret.pem"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("s3cret")
    return target, build(source, target)


def modules() -> set[str]:
    """Our source files."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / "proxy").rglob("*.py")}


def test_what_the_wheel_holds(built: tuple[Path, dict[str, bytes]]) -> None:
    """Our modules, the demo's configuration, the status page and the licence, and nothing else."""
    (wheel,) = built[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = {name for name in names if ".dist-info/" in name}
        assert names - about == modules() | DATA
        assert {name.partition(".dist-info/")[2] for name in about} == ABOUT
        assert archive.read("proxy/demo.yaml") == (ROOT / "config" / "demo.yaml").read_bytes()
        assert not any(b"s3cret" in archive.read(name) for name in names)


def test_what_the_source_archive_holds(built: tuple[Path, dict[str, bytes]]) -> None:
    """The same sources, the examples and what is said about them."""
    (archive,) = built[0].glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
        owners = {(member.uid, member.gid, member.uname, member.gname) for member in sources}
    others = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore", "PKG-INFO"}
    examples = {str(path.relative_to(ROOT)) for path in (ROOT / "config").glob("*.yaml")}
    assert names == modules() | examples | others | (DATA - {"proxy/demo.yaml"})
    assert owners == {(0, 0, "", "")}


def test_whoever_builds_them(built: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Built in another place and at another time, they are the same to the last byte."""
    assert build(ROOT, tmp_path) == built[1]
