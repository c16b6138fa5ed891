"""The sidecar as a process of its own, and all that it says."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    """What a command of ours needs of the environment, and nothing that would change its way."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more}


class Served:
    """A running sidecar."""

    def __init__(self) -> None:
        self.address = self.admin = ("", 0)
        self.beginning = ""  # of standard error, until it listens
        self.out = self.err = b""  # when it has ended


@asynccontextmanager
async def serving(tree: Mapping[str, Any], directory: Path, **environ: str) -> AsyncIterator[Served]:
    """`octet serve` with this configuration, on ports that were free."""
    server = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 0.1, **tree.get("server", {})}
    (directory / "octet.yaml").write_text(yaml.safe_dump({**tree, "server": server}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "octet.yaml"), cwd=directory, stdout=PIPE, stderr=PIPE,
        env=environment(**environ),
    )  # fmt: skip
    assert process.stderr is not None
    served = Served()
    try:
        async with asyncio.timeout(30):
            while "metrics" not in served.beginning:
                line = await process.stderr.readline()
                assert line, served.beginning
                served.beginning += line.decode()
        (data,) = re.findall(r"http://127\.0\.0\.1:(\d+)/v1", served.beginning)
        (admin,) = re.findall(r"http://127\.0\.0\.1:(\d+)/metrics", served.beginning)
        served.address, served.admin = ("127.0.0.1", int(data)), ("127.0.0.1", int(admin))
        yield served
    finally:
        process.terminate()
        served.out, served.err = await process.communicate()
        served.err = served.beginning.encode() + served.err
    assert process.returncode == 0
