"""Install a hash-pinned lock with pip into the environment that runs this, and show progress instead of pip's log.

python tools/install.py requirements/dev.txt
"""

import re
import subprocess
import sys
import time

FETCHED = re.compile(r"\s*(Downloading|Using cached) (\S+\.(?:whl|tar\.gz)) \(([\d.]+) (bytes|kB|MB|GB)\)")
UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


def main(lock: str) -> int:
    """Install the lock; pip's exit code."""
    with open(lock, encoding="utf-8") as lines:
        wanted = sum("==" in line for line in lines)
    began, on_terminal = time.monotonic(), sys.stdout.isatty()
    clear = "\r\033[K" if on_terminal else ""
    print(f"Installing {wanted} packages from {lock}", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    process = subprocess.Popen(
        [*pip, "--require-hashes", "-r", lock],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    said, count, megabytes = [], 0, 0.0
    for line in process.stdout:
        said.append(line)
        progress = ""
        if fetched := FETCHED.match(line):
            count, megabytes = count + 1, megabytes + float(fetched[3]) * UNITS[fetched[4]]
            progress = f"  {count} of {wanted}, {megabytes:.0f} MB: {fetched[2].split('-')[0]}"
        elif line.startswith("Installing collected packages"):
            progress = "  unpacking"
        if progress and on_terminal:
            print(f"{clear}{progress}", end="", flush=True)
    if process.wait():
        print(clear, *said[-20:], "pip failed; above is what it said last", sep="", file=sys.stderr)
        return process.returncode
    told = f"{count} fetched, {megabytes:.0f} MB, in {time.monotonic() - began:.0f} s" if count else "all are there already"
    print(f"{clear}  {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
