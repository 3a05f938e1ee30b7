"""Kills Headrace at any instant, again and again, and proves after each restart that nothing was lost.

    python tests/crash/crash.py [--kills 200] [--seed S] [--keep FOLDER]

The last line is `kills=N accepted=N rows=N violations=N`; the exit code is 1 where there was a violation. `--keep` leaves databases and
logs in this folder.
"""

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from crash.kills import run  # noqa: E402


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--keep", type=Path, help="leave databases and logs in this folder")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = wanted.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-crash-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(run(wanted.kills, wanted.seed, folder, lambda line: print(line, flush=True)))
    if report.violations:
        print(report.circumstances)
    for line in report.violations:
        print(f"violation (seed {wanted.seed}): {line}")
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
