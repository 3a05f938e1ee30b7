"""A client of HTTP streams that costs little: HTTP/1.1 by hand, one connection for each request under way, kept for the next."""

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from typing import Any, cast

from meter import Answer, Meter
from provider import MARK

STAMP_LENGTH = 19
LAST = b"\r\n0\r\n\r\n"
QUESTION = "What does a river do? Answer in two sentences, and name one river that you like."


class HttpClient:
    """Asks a server for one model's answer, again and again."""

    def __init__(self, host: str, port: int, path: str, headers: Mapping[str, str], model: str) -> None:
        self._host, self._port = host, port
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        self._request = _request(f"{host}:{port}", path, headers, body)
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def begin(self, meter: Meter) -> Answer:
        """Ask; the answer comes in by itself."""
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                break
        else:
            _, connection = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self._host, self._port)
            self._all.add(connection)
        answer = Answer(meter)
        connection.ask(self._request, answer)
        return answer

    def free(self, connection: "_Connection") -> None:
        """The connection's answer has ended."""
        self._idle.append(connection)

    def gone(self, connection: "_Connection") -> None:
        """The connection is closed."""
        self._all.discard(connection)

    async def close(self) -> None:
        """Leave, whatever runs."""
        for connection in list(self._all):
            connection.close()


def _request(authority: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    fields = {"Host": authority, "Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + raw


class _Connection(asyncio.Protocol):
    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._answer: Answer | None = None

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def ask(self, request: bytes, answer: Answer) -> None:
        self._answer, self._head, self._in_body = answer, b"", False
        self._cut, self._tail = b"", b""
        self._transport.write(request)

    def close(self) -> None:
        self._answer = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket: socket.socket = self._transport.get_extra_info("socket")

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.gone(self)
        if self._answer:
            self._answer.end(f"the connection was lost: {exc}")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        # A server that leaves Nagle's algorithm on would wait for a delayed acknowledgement; the kernel forgets this with every read.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        answer = self._answer
        if answer is None:
            return
        if not self._in_body:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 200 " not in head[:20] or b"chunked" not in head.lower():
                self._answer = None
                self._transport.abort()
                return answer.end(f"refused: {(head + data)[:300]!r}")
            self._in_body, data = True, b"\r\n" + data
        self._tail = data[-len(LAST) :] if len(data) >= len(LAST) else (self._tail + data)[-len(LAST) :]
        answer.take(self._whole_stamps(data), now)
        if self._tail == LAST:
            self._answer = None
            self._client.free(self)
            answer.end()

    def _whole_stamps(self, data: bytes) -> bytes:
        """The data without a stamp that is not whole yet; that one comes with the next."""
        if self._cut:
            data, self._cut = self._cut + data, b""
        last = data.rfind(MARK)
        if last >= 0 and len(data) - last <= STAMP_LENGTH and not data.endswith(LAST):
            data, self._cut = data[:last], data[last:]
        return data
