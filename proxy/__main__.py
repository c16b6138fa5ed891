"""The command `octet`; a health check every few seconds does not pay for what the other commands load."""

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["healthcheck"]:
        from proxy import probe

        return probe.main(given[1:])
    gc.disable()  # what is loaded stays: looking for garbage in it takes a sixth of the start
    from proxy import commands

    return commands.main(given)


if __name__ == "__main__":
    sys.exit(main())
