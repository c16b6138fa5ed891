"""Images by the names of published ones, made here of Debian's packages where no registry can be asked."""

import shutil
import subprocess
from pathlib import Path

from deploy.image.verify.engine import Engine
from deploy.image.verify.report import say

BASE = "docker.io/library/python:3.11-slim-bookworm"
PACKAGES = "ca-certificates,netbase,tzdata,python3-venv"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# As this machine trusts: there may be somebody in between who signs anew what is fetched.
BASE_FILE = """FROM scratch
ADD base.tar /
COPY authorities.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
"""
INSTALL = "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends"
SERVICES = {
    "redis": f"""{INSTALL} redis-server \\
    && printf '#!/bin/sh\\nexec /usr/bin/redis-server "$@" --protected-mode no\\n' > /usr/local/bin/redis-server \\
    && chmod +x /usr/local/bin/redis-server""",  # the published one has that as its default
    "prometheus": f"""{INSTALL} prometheus wget && mkdir -p /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]""",
    "alertmanager": f"""{INSTALL} prometheus-alertmanager wget && mkdir -p /alertmanager && chown nobody /alertmanager
USER nobody
ENTRYPOINT ["prometheus-alertmanager"]""",
}


def make_base(engine: Engine, directory: Path) -> None:
    """The base image, of Debian's own Python, unless it is there already."""
    if exists(engine, BASE):
        return
    say(f"      no registry: {BASE} is made of Debian's packages")
    context = directory / "base"
    context.mkdir(exist_ok=True)
    if not (context / "base.tar").exists():
        part = context / "part.tar"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", "bookworm", part],
            check=True,
        )
        part.rename(context / "base.tar")
    shutil.copyfile(AUTHORITIES, context / "authorities.crt")
    (context / "pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    (context / "Dockerfile").write_text(BASE_FILE)
    engine.run("build", "--tag", BASE, str(context))


def make_service(engine: Engine, name: str, tag: str) -> None:
    """The image of one of compose's other services, by the tag that compose asks for."""
    if exists(engine, tag):
        return
    say(f"      no registry: {tag} is made of Debian's packages")
    engine.run("build", "--network", "host", "--tag", tag, "-", given=f"FROM {BASE}\n{SERVICES[name]}\n")


def exists(engine: Engine, tag: str) -> bool:
    """Whether the engine has an image by this name."""
    return engine.run("image", "inspect", tag, check=False).returncode == 0
