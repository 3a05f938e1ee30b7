"""HTTP/1.1 as the fake provider needs it: a connection whose every write, close and reset is decided by hand."""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

_MAX_HEAD = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class CallerLeft(Exception):
    """The other side closed the connection."""


class Connection(asyncio.Protocol):
    """One connection: requests come out of `next_request`, bytes go in by `send`."""

    def __init__(self, serve: Callable[["Connection"], Awaitable[None]]) -> None:
        self._serve = serve
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport
        self.task: asyncio.Task[None]

    # ------------------------------------------------------------ called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)

        async def run() -> None:
            try:
                await self._serve(self)
            except CallerLeft:
                pass
            except ValueError:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            finally:
                transport.close()

        self.task = asyncio.get_running_loop().create_task(run())

    def data_received(self, data: bytes) -> None:
        """Keep the bytes."""
        self._buffer += data
        self._arrived.set()

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Everything is out."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everyone who waits."""
        self.closed.set()
        self._arrived.set()
        self._writable.set()

    # ------------------------------------------------------------ reading

    async def next_request(self) -> Request | None:
        """The next request, or None where the other side closed between two. Raises CallerLeft, and ValueError for what is no HTTP."""
        try:
            head = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except CallerLeft:
            return None
        method, path, _ = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await self._chunks()
        else:
            body = await self._exactly(int(headers.get("content-length") or 0))
        return Request(method, path, headers, body)

    async def reused(self) -> None:
        """Wait for the next request's first byte. Raises CallerLeft."""
        while not self._buffer:
            await self._more()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(re.split(rb"[;\r]", await self._until(b"\r\n"))[0], 16):
            body += (await self._exactly(size + 2))[:-2]
        await self._until(b"\r\n")
        return body

    async def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise CallerLeft
            await self._more()
        return self._take(end + len(mark))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        if self.closed.is_set():
            raise CallerLeft
        self._arrived.clear()
        await self._arrived.wait()

    # ------------------------------------------------------------ writing

    async def send(self, data: bytes) -> None:
        """Hand the bytes to the system, as one write where it takes them. Raises CallerLeft."""
        if self.closed.is_set() or self.transport.is_closing():
            raise CallerLeft
        self.transport.write(data)
        await self._writable.wait()
        if self.closed.is_set():
            raise CallerLeft

    async def pause(self, milliseconds: float) -> None:
        """Wait, unless the other side leaves meanwhile. Raises CallerLeft."""
        if milliseconds > 0:
            try:
                await asyncio.wait_for(self.closed.wait(), milliseconds / 1000)
            except TimeoutError:
                return
            raise CallerLeft

    async def reset(self) -> None:
        """End the connection so that the other side reads 'connection reset'."""
        await self.pause(20)  # what was sent is to arrive first: a reset may overtake it
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
