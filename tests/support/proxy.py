"""A TCP proxy that can lose everything that passes, as a host does that has lost its power: nobody is told, no connection is closed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Stands in front of a port of this machine."""

    def __init__(self, target: int) -> None:
        self.swallows = False
        """From now on nothing arrives anywhere; connections stay open."""
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, there_writer}
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if not self.swallows:
                        sink.write(data)
                        await sink.drain()
        finally:
            if not self.swallows:
                sink.close()

    async def close(self) -> None:
        """Drop every connection."""
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port."""
    made = Proxy(target)
    made._server = await asyncio.start_server(made._accept, "127.0.0.1", 0)
    try:
        yield made
    finally:
        await made.close()
