"""`python -m deploy.image.verify image` or `compose`: exit 0, 1 where a check fails, 2 where a tool is missing."""

import argparse
import signal
import sys
from pathlib import Path

from deploy.image.verify import compose, image
from deploy.image.verify.report import Missing

DIRECTORY = Path("/var/tmp/octet-verify")  # noqa: S108  # outlasts the day, and can be deleted at any time


def main() -> int:
    """Verify what is asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended
    parser = argparse.ArgumentParser(prog="verify", description="Build the image, run it, and check what it promises.")
    parser.add_argument("what", choices=("image", "compose"))
    parser.add_argument("--fresh", action="store_true", help="build every step anew")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help=f"of an engine of our own ({DIRECTORY})")
    parser.add_argument("--base", default="", help="the Dockerfile's BASE, if another")
    parser.add_argument("--build-base", default="", help="its BUILD_BASE, if another")
    options = vars(parser.parse_args())
    try:
        verify = {"image": image.verify, "compose": compose.verify}[options.pop("what")]
        return verify(image.Wanted(**options))
    except Missing as error:
        sys.stderr.write(f"cannot verify: {error}\n")
        return 2
    except RuntimeError as error:
        sys.stderr.write(f"FAIL  {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
