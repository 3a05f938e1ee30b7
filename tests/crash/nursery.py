"""The tests' end of `serve.py --nursery`: starts services one after the other, and ends them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

SERVE = Path(__file__).with_name("serve.py")
PATIENCE = 20
"""Seconds until a process that says nothing is given up."""


class Nursery:
    """Runs one service at a time. What the services log goes to the file `log`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.log_offset = 0
        """Where the log of the service at hand begins."""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _open(self) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVE), "--nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, env=plain
            )
        self._is_running = False

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # it kills what still runs, and ends
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    async def begin(self, *arguments: str) -> None:
        """Start a service, and do not wait for it."""
        self.log_offset = self._log.stat().st_size
        self._is_running = True
        self._say(" ".join(("start", *arguments)))

    async def start(self, *arguments: str) -> str:
        """Start a service; its address. Raises DiedAtStart."""
        await self.begin(*arguments)
        return await self.address()

    async def address(self) -> str:
        """The address of the service, once it listens. Raises DiedAtStart."""
        while True:
            word, _, rest = (await self._line()).partition(" ")
            if word == "listening":
                return rest
            if word == "ended":
                self._is_running = False
                raise DiedAtStart(int(rest))

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        self._say("kill")

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        self._say("term")

    async def ended(self) -> int:
        """Wait until the service has ended: its exit code, or minus the number of the signal that killed it."""
        while True:
            word, _, rest = (await self._line()).partition(" ")
            if word == "ended":
                self._is_running = False
                return int(rest)

    async def stop(self) -> None:
        """Kill the service, if there is one, and wait until it has ended."""
        if self._is_running:
            self.kill()
            await self.ended()

    def log(self) -> str:
        """What the service at hand has logged."""
        with self._log.open("rb") as file:
            file.seek(self.log_offset)
            return file.read().decode(errors="replace")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _line(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            line = await asyncio.wait_for(asyncio.to_thread(stdout.readline), PATIENCE)
        except TimeoutError:
            # Somebody still waits for that line: from here on only a new nursery can be understood.
            self._close()
            self._open()
            raise
        if not line:
            raise RuntimeError(f"the nursery has ended:\n{self.log()}")
        return line.decode().strip()


class DiedAtStart(Exception):
    """A service ended before it listened; with what."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the service ended with {status} before it listened")
        self.status = status
