"""The real service, with a point at which it dies.

    python tests/crash/serve.py --config FILE [--failpoint NAME[:TIMES]] [--clock MS]
    python tests/crash/serve.py --nursery

`--failpoint`: one of failpoints.py; the process dies when it comes there the TIMES-th time. `--clock`: the wall clock stands still at
this time, so that the windows of limits do not move while they are compared with the rows.

With `--nursery` the program loads everything once, then forks a service for each line `start ARGS` on its standard input: what takes a
second and a half takes a tenth of one. Other lines are `kill` (SIGKILL) and `term` (SIGTERM). On standard output it says `listening
ADDRESS` and `ended STATUS` (an exit code, or minus the signal's number). When its input ends it kills what still runs, and ends.
"""

import argparse
import os
import select
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from crash.failpoints import Failpoint, install  # noqa: E402
from headrace_server import app, program  # noqa: E402
from headrace_server.config import load  # noqa: E402


def serve(arguments: Sequence[str]) -> None:
    """Run the service until it dies or is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--failpoint", type=Failpoint)
    parser.add_argument("--clock", type=int)
    wanted = parser.parse_args(arguments)
    if wanted.failpoint is not None:
        install(wanted.failpoint)
    if wanted.clock is not None:
        app.wall_clock = lambda: wanted.clock
    program.serve(load(config=wanted.config), lambda address: say(f"listening {address}"))


def nursery() -> None:
    """Bring up one service after the other, by fork."""
    wakened, wake = os.pipe()
    for end in (wakened, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = 0
    say("ready")
    while True:
        readable, _, _ = select.select([0, wakened], [], [])
        if wakened in readable:
            os.read(wakened, 64)
            if child and (ended := os.waitpid(child, os.WNOHANG))[0]:
                child = 0
                say(f"ended {os.waitstatus_to_exitcode(ended[1])}")
        if 0 in readable:
            command, *arguments = shlex.split(_line()) or ["end"]
            match command:
                case "start":
                    child = _fork(arguments, [wakened, wake])
                case "kill" | "term" if child:  # not reaped yet, so the number is still its own
                    os.kill(child, signal.SIGKILL if command == "kill" else signal.SIGTERM)
                case "end":
                    if child:
                        os.kill(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                    return


def _fork(arguments: Sequence[str], not_its_own: Sequence[int]) -> int:
    if child := os.fork():
        return child
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in not_its_own:
            os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        serve(arguments)
        status = 0
    except BaseException:  # noqa: BLE001 - the child must not go on in the parent's loop, whatever happened
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _line() -> str:
    """One line of standard input, unbuffered; empty at its end."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line.decode()


def say(text: str) -> None:
    """One line, in one write."""
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nursery()
    else:
        serve(sys.argv[1:])
