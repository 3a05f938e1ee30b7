"""Processes on a core of their own that end with the one that started them, whatever happens to it."""

import http.client
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Run before the command, in its process: it stays on its core, and is killed (PR_SET_PDEATHSIG) when whoever started it is gone.
LAUNCHER = """
import ctypes, os, signal, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execvp(sys.argv[2], sys.argv[2:])
"""
LISTENING = re.compile(r"listening on \S*?([^\s/:]+):(\d+)")


class CannotStart(Exception):
    """A process that did not get ready, with the end of what it logged."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: what is measured, and everything else."""

    system: int
    others: int


@dataclass(frozen=True, slots=True)
class Running:
    """A process that takes requests."""

    pid: int
    host: str
    port: int
    start: float
    """Seconds from its start until it was ready."""


def cores() -> Cores:
    """The first two cores that we may use. Raises CannotStart where there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CannotStart("two cores are needed: one for what is measured, one for the client and the provider")
    return Cores(allowed[0], allowed[1])


def popen(
    command: Sequence[str], *, core: int, log: Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> "subprocess.Popen[str]":
    """Start a command on a core, with its stdout at hand and its stderr in a file."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_", "OPENAI_", "ANTHROPIC_"))}
    with log.open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**plain, **(environment or {})},
            start_new_session=True,
        )


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    health: tuple[int, str] | None = None,
    patience: float = 60,
) -> Iterator[Running]:
    """A server, from when it takes requests until it has been told to end.

    It is ready when it says `listening on HOST:PORT`, or, with `health`, once it answers 200 on that port and path. Raises CannotStart.
    """
    log = folder / "log"
    began = time.monotonic()
    process = popen(command, core=core, log=log, environment=environment, folder=folder)
    try:
        until = began + patience
        host, port = ("127.0.0.1", _healthy(process, *health, until)) if health else _announced(process, until)
        yield Running(process.pid, host, port, time.monotonic() - began)
    except TimeoutError:
        raise CannotStart(f"{' '.join(command)[:200]}\n{log.read_text()[-2000:]}") from None
    finally:
        _stop(process)


def _announced(process: "subprocess.Popen[str]", until: float) -> tuple[str, int]:
    """Where a process says that it listens. Raises TimeoutError."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0, until - time.monotonic())):
            line = process.stdout.readline()
            if found := LISTENING.search(line):
                return found[1], int(found[2])
            if not line:
                break
    raise TimeoutError


def _healthy(process: "subprocess.Popen[str]", port: int, path: str, until: float) -> int:
    """Wait for a 200; the port. Raises TimeoutError."""
    while time.monotonic() < until and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return port
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise TimeoutError


def _stop(process: "subprocess.Popen[str]") -> None:
    """End a process and what it started: asked first, then made to."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
