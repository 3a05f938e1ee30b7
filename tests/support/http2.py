"""HTTP/2 frames by hand, for callers that no gRPC library would let one be: such as read nothing, ping without end, or reset at once."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum

MAX_WINDOW = 2**31 - 1


class Type(IntEnum):
    """Of a frame."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


END_STREAM = ACK = 1
END_HEADERS = 4

CANCEL = 8
ENHANCE_YOUR_CALM = 11


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, as it came."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.type == Type.RST_STREAM else self.payload[4:8])


class RawClient:
    """One connection. It answers SETTINGS and PING, opens no windows by itself, and keeps every frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames: list[Frame] = []
        self.closed = asyncio.Event()
        """Set once the other side has closed the connection."""
        self._reader = reader
        self._writer = writer
        self._came = asyncio.Event()
        self._next_stream = 1

    async def run(self) -> None:
        """Read frames until the connection ends."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                frame = Frame(head[3], head[4], int.from_bytes(head[5:]) & MAX_WINDOW, payload)
                if frame.type in (Type.SETTINGS, Type.PING) and not frame.flags & ACK:
                    self.send(frame.type, ACK, 0, b"" if frame.type == Type.SETTINGS else payload)
                self.frames.append(frame)
                self._came.set()
        except (asyncio.IncompleteReadError, OSError):
            self.closed.set()
            self._came.set()

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Write one frame."""
        if not self._writer.is_closing():
            self._writer.write(len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload)

    def ping(self) -> None:
        self.send(Type.PING, 0, 0, b"headrace")

    def reset(self, stream: int) -> None:
        self.send(Type.RST_STREAM, 0, stream, struct.pack(">I", CANCEL))

    def open_window(self, size: int, stream: int = 0) -> None:
        """Take so many more bytes, on the connection or on a stream."""
        self.send(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", size))

    def call(self, path: str, message: bytes, *, half_close: bool = True) -> int:
        """Begin an RPC with its first message; the number of its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "headrace", "te": "trailers"}
        headers |= {"content-type": "application/grpc"}
        self.send(Type.HEADERS, END_HEADERS, stream, b"".join(map(_literal, headers.items())))
        self.send(Type.DATA, END_STREAM if half_close else 0, stream, b"\0" + struct.pack(">I", len(message)) + message)
        return stream

    async def drain(self) -> None:
        """Until what was written is on its way."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def until(self, kind: Type, stream: int | None = None) -> Frame:
        """The first frame of this kind. Raises ConnectionError where the connection ends before it."""
        seen = 0
        while True:
            for frame in self.frames[seen:]:
                if frame.type == kind and (stream is None or frame.stream == stream) and not (kind == Type.PING and not frame.flags):
                    return frame
            seen = len(self.frames)
            if self.closed.is_set():
                raise ConnectionError(f"no {kind.name} came")
            self._came.clear()
            await self._came.wait()


def _literal(header: tuple[str, str]) -> bytes:
    """A header without indexing and without Huffman's code: two lengths and two texts."""
    name, value = (text.encode() for text in header)
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@contextlib.asynccontextmanager
async def raw_client(port: int, *, window: int = 65_535) -> AsyncIterator[RawClient]:
    """A connection whose streams may be sent `window` bytes each, and all of them together 65,535, until more is granted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RawClient(reader, writer)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    client.send(Type.SETTINGS, 0, 0, struct.pack(">HI", 4, window))
    reading = asyncio.create_task(client.run())
    try:
        await client.until(Type.SETTINGS)
        yield client
    finally:
        reading.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
