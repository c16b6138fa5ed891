"""Writes what Octet is made of: a CycloneDX bill of the runtime lock, with hashes, licences and who needs whom.

Runs with the Python that has cyclonedx-bom; licences and needs are read from the packages that are installed.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploy.supply.licences import licence_of
from deploy.supply.locks import ROOT, RUNTIME, installed, needs_of, wanted_of

SPECIFICATION = "1.6"


def main() -> int:
    """Write the bill; 1 when it is not what the specification asks."""
    parser = argparse.ArgumentParser(prog="sbom", description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", type=Path, required=True, help="site-packages where the runtime is installed")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.json")
    options = parser.parse_args()
    bill = complete(listed(), installed(options.packages))
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    wrong = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        sys.stderr.write(f"sbom: not CycloneDX {SPECIFICATION}: {wrong}\n")
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    sys.stdout.write(f"{options.output}: {len(bill['components'])} packages\n")
    return 0


def listed() -> dict[str, Any]:
    """The bill of the lock's lines, the same for the same lock."""
    command = [
        sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(ROOT / RUNTIME), "--pyproject",
        str(ROOT / "pyproject.toml"), "--output-reproducible", "--no-validate", "--spec-version", SPECIFICATION,
    ]  # fmt: skip
    environ = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    told = subprocess.run(command, check=True, capture_output=True, env=environ)  # noqa: S603
    bill: dict[str, Any] = json.loads(told.stdout)
    return bill


def complete(bill: dict[str, Any], known: dict[str, Distribution]) -> dict[str, Any]:
    """The bill with licences, and with what each package needs, as far as it is in the bill too."""
    references = {component["name"]: component["purl"] for component in bill["components"]}
    needs = {bill["metadata"]["component"]["bom-ref"]: _wanted(known)}
    for component in bill["components"]:
        name = component["name"]
        component["bom-ref"] = references[name]
        del component["description"]
        licence = licence_of(name, known[name]) if name in known else None
        if licence is not None:
            component["licenses"] = [{"acknowledgement": "concluded", "expression": licence}]
        needs[references[name]] = needs_of(known[name], [""]) if name in known else set()
    bill["dependencies"] = [
        {"ref": reference, "dependsOn": sorted(references[each] for each in names if each in references)}
        for reference, names in sorted(needs.items())
    ]
    return bill


def _wanted(known: dict[str, Distribution]) -> set[str]:
    """What we ask for ourselves, also by the extra of another package."""
    names = set[str]()
    for each in wanted_of(ROOT, RUNTIME):
        name = canonicalize_name(each.name)
        names |= {name} | (needs_of(known[name], each.extras) if each.extras and name in known else set())
    return names


if __name__ == "__main__":
    sys.exit(main())
