"""Install the small model for the tests. Where there is none for this machine, say so; with CI=true that is a failure."""

import os
import sys

from headrace_server.local_model import ModelUnavailable, install


def main() -> int:
    """Install it; the exit code."""
    try:
        install(lambda text: print(text, flush=True))
    except ModelUnavailable as error:
        print(f"No real model here, its tests will be skipped: {error}", file=sys.stderr)
        return os.environ.get("CI") == "true"
    return 0


if __name__ == "__main__":
    sys.exit(main())
