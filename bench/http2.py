"""As much HTTP/2 as a client of gRPC needs, by hand: grpc.aio's own client costs more than many a server that it would measure.

Headers are sent as literals. Those of the server are not decoded: with a table of size 0 none of them is needed to read the next, and an
answer is judged by its messages. Windows for what is received are so large that they hardly ever need an update.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK, PADDED = 0x1, 0x4, 0x1, 0x8
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 4, 5
WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
LARGEST_FRAME = 16_384
CANCEL = 8

_FRAME = struct.Struct(">HBBBI")
_PREFIX = struct.Struct(">BI")
_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table; `name` is an index of the static table, ready encoded, or a length and a word."""
    assert len(value) < 127
    return name + bytes([len(value)]) + value


def request_headers(authority: str, path: str) -> bytes:
    """The header block of a gRPC request."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + _literal(b"\x04", path.encode())
        + _literal(b"\x01", authority.encode())
        + _literal(b"\x0f\x10", b"application/grpc")  # content-type
        + _literal(b"\x00\x02te", b"trailers")
    )


class Stream:
    """One RPC. `on_message` is given each message; `on_end` why the stream ended early, or None when it ended by itself."""

    __slots__ = ("id", "on_end", "on_message", "rest", "window")

    def __init__(self, number: int, window: int, on_message: Callable[[bytes], None], on_end: Callable[[str | None], None]) -> None:
        self.id = number
        self.window = window
        self.on_message = on_message
        self.on_end = on_end
        self.rest = b""

    def feed(self, payload: bytes) -> None:
        """A message is a byte that says whether it is compressed, four of its length, and itself. It may be cut anywhere."""
        if self.rest:
            payload = self.rest + payload
        at, size = 0, len(payload)
        while size - at >= 5:
            compressed, length = _PREFIX.unpack_from(payload, at)
            end = at + 5 + length
            if end > size:
                break
            if compressed:
                raise ValueError("a compressed message was not asked for")
            self.on_message(payload[at + 5 : end])
            at = end
        self.rest = payload[at:] if at < size else b""


class Connection(asyncio.Protocol):
    """One connection with any number of RPCs."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._rest = b""
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._waiting: deque[tuple[Stream, bytes]] = deque()
        self._unacknowledged = 0

    # ------------------------------------------------------------ for the caller

    def open(self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[str | None], None]) -> Stream:
        """Begin an RPC. Raises ConnectionError where the connection is gone."""
        if self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        stream = Stream(self._next_id, self._stream_window, on_message, on_end)
        self._next_id += 2
        self._streams[stream.id] = stream
        self._transport.write(frame(HEADERS, END_HEADERS, stream.id, request_headers(self._authority, path)))
        return stream

    def send(self, stream: Stream, message: bytes, *, last: bool) -> None:
        """Send a message as soon as the server's windows let it; `last`: no more will come."""
        body = _PREFIX.pack(0, len(message)) + message
        for at in range(0, len(body), LARGEST_FRAME):
            ends = last and at + LARGEST_FRAME >= len(body)
            self._waiting.append((stream, frame(DATA, END_STREAM if ends else 0, stream.id, body[at : at + LARGEST_FRAME])))
        self._flush()

    def cancel(self, stream: Stream) -> None:
        """Give an RPC up; nothing more is heard of it."""
        if self._streams.pop(stream.id, None):
            self._transport.write(frame(RESET, 0, stream.id, _WORD.pack(CANCEL)))

    def close(self) -> None:
        """Leave; what runs is cancelled by that."""
        self._streams.clear()
        self._transport.close()

    # ------------------------------------------------------------ for the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = ((HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, WINDOW), (MAX_FRAME_SIZE, 1 << 20))
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings))
            + frame(WINDOW_UPDATE, 0, 0, _WORD.pack(WINDOW - DEFAULT_WINDOW))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.on_end(f"the connection was lost: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 9:
            high, low, kind, flags, number = _FRAME.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > size:
                break
            self._frame(kind, flags, number & WINDOW, data[at + 9 : end])
            at = end
        self._rest = data[at:] if at < size else b""
        if self._unacknowledged > WINDOW // 2:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._unacknowledged)))
            self._unacknowledged = 0

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            assert not flags & PADDED, "padding was not expected"
            self._unacknowledged += len(payload)
            if stream := self._streams.get(number):
                stream.feed(payload)
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == WINDOW_UPDATE:
            self._widen(number, _WORD.unpack(payload)[0])
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == RESET:
            self._end(number, f"reset by the server, error {_WORD.unpack(payload)[0]}")
        elif kind == GOAWAY:
            self._transport.close()
        if flags & END_STREAM and kind in (DATA, HEADERS):
            self._end(number, None)

    def _end(self, number: int, why: str | None) -> None:
        if stream := self._streams.pop(number, None):
            stream.on_end(why)

    def _take_settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
        self._transport.write(frame(SETTINGS, ACK, 0))
        self._flush()

    def _widen(self, number: int, more: int) -> None:
        if number == 0:
            self._window += more
        elif stream := self._streams.get(number):
            stream.window += more
        self._flush()

    def _flush(self) -> None:
        while self._waiting:
            stream, data = self._waiting[0]
            size = len(data) - 9
            if stream.id in self._streams:
                if min(self._window, stream.window) < size:
                    return
                self._window -= size
                stream.window -= size
                self._transport.write(data)
            self._waiting.popleft()
