"""The sidecar of the manifests, run in namespaces that are like its pod."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.manifests import cases, workloads
from tests.programs import missing

SCRIPT = Path(__file__).parent / "in_a_pod.py"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount")
ENVIRON = {"PATH": f"{os.defpath}:/usr/sbin:/sbin"}  # where `ip` is


def can_unshare() -> bool:
    """Whether the system lets anybody have namespaces of their own, and look after them."""
    try:
        done = subprocess.run([*NAMESPACES, "ip", "-V"], capture_output=True, check=False, env=ENVIRON)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def test_the_sidecar_does_in_a_pod_what_the_manifests_count_on() -> None:
    """The command line that is rendered, its paths and ports, on a file system that cannot be written.

    Probes and metrics are answered at the pod's address, the admin side and the data port are not; a swapped ConfigMap
    and a rotated key are taken over; told to stop with no call open, it ends.
    """
    (workload,) = workloads(cases()["sidecar"])
    (sidecar,) = workload.octets
    if not can_unshare():
        missing("unshare, or the permission to have namespaces")
    octet = str(Path(sys.executable).parent / "octet")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(SCRIPT), octet, *sidecar["args"]],
        capture_output=True, text=True, check=False, env=ENVIRON, timeout=55,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "ready": True,
        "/healthz": 200,
        "/metrics": 200,
        "/admin/config": 403,
        "data port is closed to others": True,
        "first call": ["Bearer old", "first"],
        "taken over": True,
        "exit code": 0,
    }
