"""What must hold of the lock files, told from the files and from what is installed; nothing is asked of anybody."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.supply.licences import fault_of

ROOT = Path(__file__).parents[2]
RUNTIME = "deploy/image/requirements.txt"
EVERYTHING = "requirements.txt"  # what developers and CI install
# Each lock, and where it is said what it is for: extras of pyproject.toml, or a file of names.
LOCKS: Mapping[str, tuple[str, ...]] = {
    EVERYTHING: ("pyproject.toml", "otel", "dev"),
    RUNTIME: ("pyproject.toml", "otel"),
    "deploy/image/build.txt": ("deploy/image/build.in",),
    "deploy/tools/requirements.txt": ("deploy/tools/requirements.in",),
    "deploy/tools/archives.txt": ("deploy/tools/archives.in",),
}
UNFINISHED = ("opentelemetry-",)  # names of packages that have no release but such as are called unfinished
_PIN = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.]*)(?: ; (?P<marker>[A-Za-z_0-9 .<>=!'()-]+))?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})*)"
)


class Pin(NamedTuple):
    """One line of a lock."""

    name: str
    version: str
    hashes: frozenset[str]
    marker: str = ""


def read_lock(text: str) -> tuple[list[Pin], list[str]]:
    """The pins of a lock, and its lines that are none: an address, an option, a file."""
    pins, strange = [], []
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        found = _PIN.fullmatch(line)
        if found is None:
            strange.append(line)
            continue
        hashes = frozenset(found["hashes"].replace(" --hash=sha256:", " ").split())
        pins.append(Pin(found["name"], found["version"], hashes, found["marker"] or ""))
    return pins, strange


def wanted_of(root: Path, lock: str) -> list[Requirement]:
    """What a lock is for, by the file that says so."""
    file, *extras = LOCKS[lock]
    if file.endswith(".in"):
        lines = root.joinpath(file).read_text().splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith("#")]
    project = tomllib.loads(root.joinpath(file).read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [wanted for wanted in map(Requirement, lines) if wanted.name != project["name"]]


def faults_of_lock(text: str, wanted: Iterable[Requirement]) -> Iterator[str]:
    """What is wrong with one lock."""
    pins, strange = read_lock(text)
    for line in strange:
        yield f"holds a line that is no name with a version and hashes: {line[:80]!r}"
    names = [pin.name for pin in pins]
    if names != sorted(names):
        yield "its names are not in order"
    for name, count in Counter(names).items():
        if count > len({pin.marker for pin in pins if pin.name == name and (pin.marker or count == 1)}):
            yield f"{name} stands twice, and not for different systems"
    for pin in pins:
        if not pin.hashes:
            yield f"{pin.name} has no hash"
        if Version(pin.version).is_prerelease and not pin.name.startswith(UNFINISHED):
            yield f"{pin.name} {pin.version} is no finished release"
    yield from _unfitting(pins, wanted)


def _unfitting(pins: list[Pin], wanted: Iterable[Requirement]) -> Iterator[str]:
    """What is wanted, and not locked so."""
    for each in wanted:
        versions = [pin.version for pin in pins if pin.name == canonicalize_name(each.name)]
        if not versions:
            yield f"{each.name} is wanted, and not locked"
        for version in versions:
            if not each.specifier.contains(version, prereleases=True):
                yield f"{each.name} {version} is locked, and {each.specifier} is wanted"


def faults_between(runtime: str, everything: str) -> Iterator[str]:
    """Where what is shipped is not what is tested."""
    tested = {(pin.name, pin.marker): pin for pin in read_lock(everything)[0]}
    for pin in read_lock(runtime)[0]:
        other = tested.get((pin.name, pin.marker))
        if other is None:
            yield f"{pin.name} is shipped, and not tested"
        elif (other.version, other.hashes) != (pin.version, pin.hashes):
            yield f"{pin.name} is shipped as {pin.version}, and tested as {other.version}, or with other hashes"


def installed(packages: Path | None = None) -> dict[str, Distribution]:
    """What is installed there, or with this Python."""
    found = distributions(path=[str(packages)]) if packages is not None else distributions()
    return {canonicalize_name(each.metadata["Name"]): each for each in found}


def needed(wanted: Iterable[Requirement], known: Mapping[str, Distribution]) -> set[str]:
    """The names of all that is wanted, and of what that needs, on whatever system."""
    names, seen = set[str](), set[tuple[str, str]]()
    waiting = [(canonicalize_name(each.name), extra) for each in wanted for extra in ("", *each.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        names.add(name)
        for line in (known[name].requires or ()) if name in known else ():
            each = Requirement(line)
            if _may_apply(each, extra):
                waiting += [(canonicalize_name(each.name), inner) for inner in ("", *each.extras)]
    return names


def needs_of(package: Distribution, extras: Iterable[str]) -> set[str]:
    """What a package itself needs with these extras, on whatever system."""
    wanted = [
        each for each in map(Requirement, package.requires or ()) if any(_may_apply(each, extra) for extra in extras)
    ]
    names: set[str] = {canonicalize_name(each.name) for each in wanted}
    return names - {canonicalize_name(package.metadata["Name"])}


def _may_apply(each: Requirement, extra: str) -> bool:
    """Whether a requirement holds with this extra, on some system."""
    asked = re.findall(r"extra == ['\"]([^'\"]+)['\"]", str(each.marker or ""))
    return canonicalize_name(extra) in map(canonicalize_name, asked) if asked else not extra


def faults_of_runtime(
    pins: Iterable[Pin], wanted: Iterable[Requirement], known: Mapping[str, Distribution]
) -> Iterator[str]:
    """What is shipped that nothing needs, or under a licence that is not agreed."""
    needs = needed(wanted, known)
    for pin in pins:
        if pin.name not in needs:
            yield f"{pin.name} is shipped, and nothing needs it"
        if pin.name in known:
            licence = fault_of(pin.name, known[pin.name])
            if licence is not None:
                yield licence


def faults(root: Path = ROOT) -> list[str]:
    """All that is wrong with the tree's locks."""
    texts = {lock: root.joinpath(lock).read_text() for lock in LOCKS}
    found = [
        f"{lock}: {fault}" for lock, text in texts.items() for fault in faults_of_lock(text, wanted_of(root, lock))
    ]
    found += [f"{RUNTIME}: {fault}" for fault in faults_between(texts[RUNTIME], texts[EVERYTHING])]
    pins, wanted = read_lock(texts[RUNTIME])[0], wanted_of(root, RUNTIME)
    return [*found, *(f"{RUNTIME}: {fault}" for fault in faults_of_runtime(pins, wanted, installed()))]
