"""Under which licences the packages are that are shipped with Octet."""

import re
from importlib.metadata import Distribution

AGREED = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"})
# Packages whose metadata name none, or not by its name: what the licence file in them says.
READ_BY_US = {"aiocache": "BSD-3-Clause", "jinja2": "BSD-3-Clause"}
_SPELLED = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


def licence_of(name: str, package: Distribution) -> str | None:
    """A package's licence as an SPDX expression; None when it names none that we can read."""
    if name in READ_BY_US:
        return READ_BY_US[name]
    expressions: list[str] = package.metadata.get_all("License-Expression", [])
    classifiers = [line for line in package.metadata.get_all("Classifier", []) if line.startswith("License ::")]
    named = [line.rpartition(" :: ")[2] for line in classifiers]
    for text in (*expressions, *package.metadata.get_all("License", []), *named):
        spelled: str = _SPELLED.get(text.strip().lower(), text.strip())
        if spelled and names_in(spelled) <= AGREED:
            return spelled
    return expressions[0] if expressions else None


def names_in(expression: str) -> set[str]:
    """The licences that an SPDX expression names."""
    return set(re.split(r"\s+(?:AND|OR|WITH)\s+|[()\s]+", expression)) - {""}


def fault_of(name: str, package: Distribution) -> str | None:
    """What is wrong with a package's licence; None: nothing."""
    licence = licence_of(name, package)
    if licence is None:
        return f"{name} names no licence; read it, and say in deploy/supply/licences.py which it is"
    alternatives = [names_in(each) <= AGREED for each in re.split(r"\s+OR\s+", licence)]
    return None if any(alternatives) else f"{name} is under {licence}, which is not agreed"
