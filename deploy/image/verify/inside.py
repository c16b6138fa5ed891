"""What is run in a container beside the sidecar, or in it: given to its Python as text, it needs nothing else."""

import http.client
import importlib
import json
import sys
import time
from pathlib import Path

ASK = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "Count to a hundred."}]}
WRITABLE = ("/", "/tmp", "/etc/octet", "/opt/venv", "/run", "/var/tmp", "/dev/shm")  # noqa: S108  # places to try


def stream(host: str, port: str) -> None:
    """Print each line of a streamed answer's data as it arrives, then how the answer ended."""
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK), {"Content-Type": "application/json"})
        response = connection.getresponse()
        tell(f"status {response.status} {response.getheader('x-octet-upstream')}")
        for line in response:
            if line.startswith(b"data:"):
                tell(line.decode().strip())
        tell("end")
    except (OSError, http.client.HTTPException) as error:
        tell(f"broken {error!r}")


def facts() -> None:
    """Print what the kernel says of process 1, and what of its file system can be written to, as JSON."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
    found = {
        name: status[name].split() for name in ("Uid", "Gid", "CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp")
    }
    found["command"] = Path("/proc/1/cmdline").read_text().split("\0")[:-1]
    found["memory"] = next((limit.read_text().split() for limit in LIMITS if limit.exists()), [])
    found["listening"] = sorted(listening())
    found["written"] = [place for place in WRITABLE if can_write(Path(place))]
    tell(json.dumps(found))


LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def listening() -> set[str]:
    """Addresses of listening sockets in this network namespace."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            address, port = local.split(":")
            octets = reversed(bytes.fromhex(address))
            found.add(f"{'.'.join(map(str, octets))}:{int(port, 16)}")
    return found


def can_write(place: Path) -> bool:
    """Whether a file can be made there."""
    try:
        (place / "octet-verify").write_bytes(b"x")
    except OSError:
        return False
    return True


def imports() -> None:
    """Import every compiled module that is installed; print how many were, and the names of the others."""
    root = Path(next(each for each in sys.path if each.endswith("site-packages")))
    loaded, others = 0, []
    for path in sorted(root.rglob("*.so")):
        module = path.relative_to(root).parent / path.name.partition(".")[0]
        try:
            importlib.import_module(".".join(module.parts))
            loaded += 1
        except ImportError as error:
            others.append(f"{module}: {error}")
    tell(json.dumps([loaded, others]))


def tell(text: str) -> None:
    """Print it with the time."""
    sys.stdout.write(f"{time.monotonic():.3f} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "stream":
        stream(*sys.argv[2:])
    else:
        {"facts": facts, "imports": imports}[sys.argv[1]]()
