"""What the clients of every language are tested against: the real service in front of a fake provider, and a proxy that cuts connections.

    python tests/clients/environment.py -- go test ./...

runs a command with these variables, exits with its code, and leaves no process behind:

    HEADRACE_TARGET    HOST:PORT of the service, without TLS and without tokens
    HEADRACE_PROXY     HOST:PORT of the proxy in front of it, see `CuttingProxy`
    HEADRACE_VECTORS   folder of the wire vectors

A variable HEADRACE_CLIENT_RESULTS of the caller's own, the path of a file, goes through to the command. tests/clients/README.md tells
what a client does with all of them.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from headrace_server.app import running
from headrace_server.config import ENVIRONMENT_KEYS, Settings
from headrace_server.fake_provider import FakeProvider, Script, load_script

FOLDER = Path(__file__).resolve().parent
VECTORS = FOLDER / "vectors"

CUT_AFTER = 2_000
"""Bytes from the service to the client after which the proxy resets a connection. An answer of the provider `slow` has nearly three times
as many."""

CUTS = 2
"""How many connections of one request the proxy resets. The second one may bring a client no further: what it lacks may be one message by
then, longer than what is let through."""

_REQUEST_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CuttingProxy:
    """Passes bytes on, and resets the first connections of every request.

    It looks for UUIDs in what the client sends, where gRPC carries messages as they are. A connection is reset after CUT_AFTER bytes from
    the service if it brought a request id that at most CUTS connections have brought so far, this one included; every other connection
    goes undisturbed. So a client that resumes, on as many connections as it takes, always meets the same, whatever else runs.
    """

    def __init__(self, target_port: int) -> None:
        self.cuts = 0
        """Connections that were reset."""
        self.port = 0
        self._target_port = target_port
        self._connections_of: Counter[bytes] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "CuttingProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        service_reader, service = await asyncio.open_connection("127.0.0.1", self._target_port)
        brought: set[bytes] = set()
        up = asyncio.create_task(self._up(client_reader, service, brought))
        try:
            if await self._down(service_reader, client, brought):
                self.cuts += 1
                await asyncio.sleep(0.02)  # what was sent is to arrive first: a reset may overtake it
                raw = client.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # one of the two sides is gone, and so the other one has to go
        finally:
            up.cancel()
            client.transport.abort()
            service.transport.abort()

    async def _up(self, client_reader: asyncio.StreamReader, service: asyncio.StreamWriter, brought: set[bytes]) -> None:
        """Pass on what the client sends, and note the request ids in it."""
        tail = b""
        with contextlib.suppress(OSError):
            while data := await client_reader.read(65536):
                tail += data
                for request_id in set(_REQUEST_ID.findall(tail)) - brought:
                    brought.add(request_id)
                    self._connections_of[request_id] += 1
                tail = tail[-35:]
                service.write(data)
                await service.drain()
        service.transport.abort()

    async def _down(self, service_reader: asyncio.StreamReader, client: asyncio.StreamWriter, brought: set[bytes]) -> bool:
        """Whether the connection is to be reset, as against having ended."""
        passed = 0
        while data := await service_reader.read(65536):
            doomed = any(self._connections_of[request_id] <= CUTS for request_id in brought)
            data = data[: max(0, CUT_AFTER - passed)] if doomed else data
            client.write(data)
            await client.drain()
            passed += len(data)
            if doomed and passed >= CUT_AFTER:
                return True
        return False


@contextlib.asynccontextmanager
async def environment() -> AsyncIterator[dict[str, str]]:
    """Everything, running in this event loop, and the variables that lead to it."""
    for name in (name for names in ENVIRONMENT_KEYS.values() for name in names):
        os.environ.pop(name, None)  # no mistake in a client is to reach a provider that costs money
    script = load_script(FOLDER / "providers.yaml")
    assert isinstance(script, Script)
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-clients-"))
        fake = await stack.enter_async_context(FakeProvider(script))
        providers: dict[str, Any] = {
            name: {"dialect": provider.dialect, "api_url": fake.api_urls()[name], **provider.settings}
            for name, provider in script.providers.items()
        }
        settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{folder}/headrace.db", drain_timeout=1, providers=providers)
        app = await stack.enter_async_context(running(settings))
        proxy = await stack.enter_async_context(CuttingProxy(app.port))
        yield {
            "HEADRACE_TARGET": f"127.0.0.1:{app.port}",
            "HEADRACE_PROXY": f"127.0.0.1:{proxy.port}",
            "HEADRACE_VECTORS": str(VECTORS),
        }


async def run(command: Sequence[str], *, seconds: float) -> int:
    """Run the command in the environment; its exit code, 124 where it took too long."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with environment() as variables:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **variables}, start_new_session=True)
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            print(f"environment: the command takes longer than {seconds:g} s", file=sys.stderr)
            return 124
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a client's tests against the real service.")
    parser.add_argument("--seconds", type=float, default=900, help="most time that the command may take (%(default)g)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, after --")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("there is no command to run: environment.py -- COMMAND …")
    logging.getLogger("headrace_server").setLevel(logging.ERROR)  # that a request failed is what some steps want to see
    try:
        return asyncio.run(run(command, seconds=arguments.seconds))
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143
    except FileNotFoundError as error:
        print(f"environment: {error}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
