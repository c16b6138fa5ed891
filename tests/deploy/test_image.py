"""The Dockerfile is what docs/image.md says of it; that it builds and runs is for `make verify-image`."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.image.verify import image
from deploy.image.verify.contents import SBOM
from deploy.image.verify.report import Report
from deploy.image.verify.standins import BASE
from tests.deploy.image_file import DOCKERFILE, ROOT, Step, form, only, reaches_the_build, stages
from tests.deploy.manifests import run
from tests.programs import tool

SIDECAR = ["serve", "/etc/octet/octet.yaml", "--admin", "0.0.0.0:8081"]
IGNORE = (ROOT / ".dockerignore").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build() -> list[Step]:
    return stages(DOCKERFILE.read_text())[1][0]


def final() -> list[Step]:
    return stages(DOCKERFILE.read_text())[1][-1]


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile follows the practice that hadolint knows, down to its mildest advice."""
    done = run(tool("hadolint"), "--failure-threshold", "style", str(DOCKERFILE))
    assert (done.stdout, done.returncode) == ("", 0)


def test_every_stage_stands_on_the_one_base() -> None:
    """Python is the same where the venv is made and where it runs, and of a version that is named."""
    arguments, (first, *rest) = stages(DOCKERFILE.read_text())
    defaults = dict(step.rest.split("=", 1) for step in arguments)
    assert defaults["BUILD_BASE"] == "${BASE}"
    assert defaults["BASE"] == BASE
    assert ":3.11-" in defaults["BASE"]
    assert [first[0].rest, *(stage[0].rest for stage in rest)] == ["${BUILD_BASE} AS build", "${BASE}"]


def test_the_user_is_a_number() -> None:
    """Kubernetes can tell only of a number that it is not root."""
    assert only(final(), "USER") == "10001:10001"


def test_nothing_needs_a_shell() -> None:
    """What runs is in exec form; the final stage runs nothing while it is built, so its base may have no shell."""
    assert form(final(), "ENTRYPOINT") == ["octet"]
    assert form(final(), "HEALTHCHECK") == ["octet", "healthcheck"]
    assert only(final(), "STOPSIGNAL") == "SIGTERM"
    assert {step.word for step in final()} == {
        "FROM", "ARG", "LABEL", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip


def test_the_command_line_is_that_of_a_sidecar() -> None:
    """Callers reach it on loopback only; what is verified is what is built."""
    assert form(final(), "CMD") == SIDECAR == image.COMMAND
    assert only(final(), "EXPOSE").split() == ["8080", "8081"]


def test_nothing_comes_from_elsewhere() -> None:
    """No address is fetched and no other image copied from; nothing that only BuildKit knows."""
    assert all(step.word != "ADD" for stage in (build(), final()) for step in stage)
    copies = [step.rest for stage in (build(), final()) for step in stage if step.word == "COPY"]
    options = {part for rest in copies for part in rest.split() if part.startswith("--")}
    assert options == {"--from=build"}
    assert "<<" not in DOCKERFILE.read_text()
    assert "--mount" not in DOCKERFILE.read_text()


def test_whatever_is_installed_is_locked() -> None:
    """Each run of pip takes hashes, or nothing but what was just built; it builds nothing else."""
    runs = [part for step in build() if step.word == "RUN" for part in step.rest.split(" && ")]
    installs = [each for each in runs if "pip" in each and " install " in each]
    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)
    assert [each for each in runs if " wheel " in each and "--no-deps" not in each] == []
    assert "PIP_ONLY_BINARY=:all:" in only(build(), "ENV").split()
    assert "hatchling==" in (ROOT / "deploy/image/build.txt").read_text()


def test_the_labels_are_those_of_the_project() -> None:
    """Version, licence and description say what pyproject.toml says."""
    arguments = dict(step.rest.split("=", 1) for step in final() if step.word == "ARG")
    assert arguments == {"VERSION": PROJECT["version"], "REVISION": "", "SOURCE": ""}
    labels = only(final(), "LABEL")
    assert f'description="{PROJECT["description"]}"' in labels
    assert f'licenses="{PROJECT["license"]}"' in labels
    for name in ("title", "version", "revision", "source"):
        assert f"org.opencontainers.image.{name}=" in labels


def sources() -> list[str]:
    """What the Dockerfile copies from the repository."""
    copies = [step.rest.split() for step in build() if step.word == "COPY"]
    return [path for *found, _ in copies for path in found]


def test_everything_copied_is_there_and_let_through() -> None:
    """No step fails for want of a file, and .dockerignore names nothing else."""
    for path in sources():
        assert (ROOT / path).exists(), path
        assert reaches_the_build(path, IGNORE), path
    allowed = {line.removeprefix("!") for line in IGNORE.splitlines() if line.startswith("!")}
    assert allowed == set(sources())


OUTSIDE = """.git/HEAD .env deploy/compose/.env .venv/bin/python .tools/bin/helm tests/test_docs.py config/octet.yaml
    proxy/.env proxy/cache/__pycache__/a.cpython-311.pyc octet.yaml key.pem deploy/image/verify/image.py"""


@pytest.mark.parametrize("path", OUTSIDE.split())
def test_what_stays_outside(path: str) -> None:
    """Secrets, history, tests and tools never reach a build."""
    assert not reaches_the_build(path, IGNORE)


def test_the_package_is_let_through() -> None:
    """Every module of ours, and the demo's configuration that goes with it."""
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "proxy").rglob("*.py")]
    assert len(modules) > 100
    assert [path for path in (*modules, "config/demo.yaml") if not reaches_the_build(path, IGNORE)] == []


def test_the_place_of_the_bill_of_materials() -> None:
    """It is where the documentation says."""
    place, name = f"/{SBOM}".rsplit("/", 1)
    assert f"/build/{name} {place}/" in next(step.rest for step in final() if step.word == "COPY")
    assert f"/{SBOM}" in (ROOT / "docs/image.md").read_text()


@pytest.mark.parametrize("what", ["image", "compose"])
def test_without_an_engine_nothing_is_verified(tmp_path: Path, what: str) -> None:
    """It names the programs that it wants, and does not end well."""
    command = [sys.executable, "-m", "deploy.image.verify", what, "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}, cwd=ROOT)
    assert done.returncode == 2
    assert "cannot verify: no Docker engine runs, and one of our own needs dockerd, containerd, runc" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 then, and where nothing was checked at all."""
    report = Report()
    assert report.end() == 1
    report.equal("one is one", 1, 1)
    report.same("some are the same", {"a"}, {"a"})
    assert report.end() == 0
    report.equal("one is two", 1, 2)
    report.same("some are others", {"a", "b"}, {"b", "c"})
    report.same("none are none", set(), set())
    assert report.end() == 1
    told = capsys.readouterr().out
    assert "FAIL  one is two: 1, not 2" in told
    assert "FAIL  some are others: + a - c" in told
    assert "5 checks, 3 failed" in told
