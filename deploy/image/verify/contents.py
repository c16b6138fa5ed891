"""What is in an image: its files, and its own account of them."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from deploy.image.verify.engine import Engine
from deploy.image.verify.report import Report

SBOM = "usr/share/doc/octet/sbom.cdx.json"
OURS = ("opt/venv", "usr/share/doc/octet")
ABOVE = ("opt", "usr", "usr/share", "usr/share/doc")  # folders on the way, which a base may not have
UNWANTED = re.compile(r"(ba|da|a|z|k|c|fi)?sh|busybox|curl|wget|pip[\d.]*|easy_install|activate.*|gcc|uv|strip")
UNWANTED_PACKAGES = ("pip", "setuptools", "wheel", "hatchling", "cyclonedx_bom", "pytest")
ANY_WRITES, SET_ID = 0o002, 0o6000
VERSIONS = ("311", "312", "313", "314")  # of Python, as bytecode spells them
BUDGET_BYTES = 60_000_000
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)(\s*;[^\\]*)?", re.MULTILINE)

Files = Mapping[str, tarfile.TarInfo]


def files(engine: Engine, image: str, wanted: str = "") -> tuple[Files, bytes]:
    """Everything in an image by its path, and the content of one file."""
    container = engine.ask("create", "--entrypoint", "none", image)
    content = b""
    try:
        found = {}
        with engine.begin("export", container) as printed, tarfile.open(fileobj=printed, mode="r|") as archive:
            for each in archive:
                found[each.name.rstrip("/")] = each
                if wanted and each.name == wanted and (opened := archive.extractfile(each)) is not None:
                    content = opened.read()
    finally:
        engine.remove(container)
    return found, content


def check_contents(report: Report, engine: Engine, image: str, base: str, lock: str, version: str) -> None:
    """What was put on top of the base is what was promised, and nothing else."""
    below, _ = files(engine, base)
    everything, sbom = files(engine, image, SBOM)
    added = {name: info for name, info in everything.items() if name not in below}
    paths = [PurePosixPath(name) for name in added]
    strangers = [name for name in added if name not in ABOVE and not is_ours(name)]
    report.equal("nothing is added elsewhere than /opt/venv and /usr/share/doc/octet", strangers, [])
    programs = sorted(path.name for path in paths if path.parent == PurePosixPath("opt/venv/bin"))
    strange = [name for name in programs if not re.fullmatch(r"octet|python[0-9.]*", name)]
    report.check("its programs are octet and Python", programs and not strange, " ".join(programs))
    report.equal(
        "no shell, no pip, no downloader among them", [p.name for p in paths if UNWANTED.fullmatch(p.name)], []
    )
    loose = [name for name, info in added.items() if not info.issym() and info.mode & (ANY_WRITES | SET_ID)]
    report.equal("nothing can be written by everybody, nothing is setuid", loose, [])
    report.equal(
        "all of it is root's", {info.uid for info in added.values()} | {info.gid for info in added.values()}, {0}
    )
    bare = [path for path in paths if path.suffix == ".py" and not compiled(path, added)]
    report.equal("every module has its bytecode", bare, [])
    check_packages(report, added, json.loads(sbom or b"{}"), lock, version)
    size = sum(sizes(engine, image)) - sum(sizes(engine, base))
    counted = sum(info.size for info in added.values())
    report.check("the layers above the base are within 60 MB", 0 < size <= BUDGET_BYTES, f"{size / 1e6:.1f} MB")
    report.check("that is what the files add up to", abs(size - counted) < 0.1 * size, f"{counted / 1e6:.1f} MB")


def is_ours(name: str) -> bool:
    """Whether a path is where we put things."""
    return any(name == each or name.startswith(f"{each}/") for each in OURS)


def compiled(path: PurePosixPath, added: Files) -> bool:
    """Whether the bytecode of a module is beside it."""
    return any(str(path.parent / "__pycache__" / f"{path.stem}.cpython-{each}.pyc") in added for each in VERSIONS)


def check_packages(report: Report, added: Files, sbom: Mapping[str, Any], lock: str, version: str) -> None:
    """The lock, what is installed, and the account of it name the same versions."""
    octet = {f"octet {version}"}
    installed = set(packages(added))
    told = {f"{plain(each['name'])} {each['version']}" for each in sbom.get("components", ())}
    pins = {f"{plain(name)} {pin}": marker for name, pin, marker in PIN.findall(lock)}
    names = {each.split()[0] for each in installed}
    report.equal("the SBOM is CycloneDX", sbom.get("bomFormat"), "CycloneDX")
    report.same("the SBOM names what is installed", told | octet, installed)
    report.same("what is installed is what is locked, and Octet", (installed & pins.keys()) | octet, installed)
    report.equal("all that is locked is installed", [pin for pin in pins if not pins[pin] and pin not in installed], [])
    report.equal("none of it is a tool of building", [name for name in UNWANTED_PACKAGES if plain(name) in names], [])
    licensed = [each["name"] for each in sbom.get("components", ()) if each.get("licenses")]
    report.check("the SBOM tells most licences", len(licensed) > len(told) // 2, f"{len(licensed)} of {len(told)}")


def packages(added: Files) -> Iterator[str]:
    """Names and versions of what is installed, by the folders that say so."""
    for name in added:
        path = PurePosixPath(name)
        if path.name == "METADATA" and path.parent.name.endswith(".dist-info"):
            package, _, version = path.parent.name.removesuffix(".dist-info").rpartition("-")
            yield f"{plain(package)} {version}"


def plain(name: str) -> str:
    """The name of a package in the one spelling that all share."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sizes(engine: Engine, image: str) -> list[int]:
    """Bytes that each layer adds."""
    return [int(float(each)) for each in engine.ask("history", "--human=false", "--format", "{{.Size}}", image).split()]
