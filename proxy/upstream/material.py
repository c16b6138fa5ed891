"""What the files of one upstream hold: its key and its certificates. Reading them may take time: not on the loop."""

import hashlib
import ssl
from pathlib import Path
from typing import NamedTuple

from proxy.config import Upstream
from proxy.upstream.credentials import read_credential
from proxy.upstream.dial import tls_context


class Material(NamedTuple):
    """What was read.

    Args:
        credential: our key, or None.
        certificates: digests of its TLS files.
        tls: how it is trusted; None: as the system trusts, or not at all.
    """

    credential: str | None
    certificates: tuple[bytes | None, ...]
    tls: ssl.SSLContext | None


def gather(name: str, upstream: Upstream) -> Material:
    """Read it all.

    Raises:
        ConfigError: a key cannot be read, or a certificate.
    """
    tls = upstream.tls
    files = (tls.ca_file, tls.cert_file, tls.key_file)
    own = tls_context(name, *files) if any(files) else None
    return Material(read_credential(name, upstream), tuple(map(digest, files)), own)


def digest(file: str | None) -> bytes | None:
    """A digest of a file's contents; None where there is none, and for what is no file: a device, a pipe."""
    try:
        if file is None or not Path(file).is_file():
            return None
        with Path(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except (OSError, ValueError):
        return None
