"""A peer on loopback that does exactly what a test tells it to, down to the bytes."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from headrace_server.providers.http import tls_context


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What has to do with sockets is tested on both event loops that are in use: connections end differently on them."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return loops if item.path.name in ("test_transport.py", "test_upstream.py") else {"asyncio": asyncio.SelectorEventLoop}


@pytest.fixture(scope="session")
def trust() -> ssl.SSLContext:
    """The context that clients have by default; reading all authorities takes longer than most tests."""
    return tls_context()


@dataclass
class Exchange:
    """One request as the peer received it, and the means to answer."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self, body: bytes, status: str = "200 OK", content_type: str = "text/event-stream", extra: str = "") -> None:
        """A whole answer with its length."""
        head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        await self.send(head.encode() + body)

    async def chunks(self, *pieces: bytes, end: bool = True, extra: str = "") -> None:
        """An answer in chunks, with a pause after each, so that each is a read of its own."""
        await self.send(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n{extra}\r\n".encode())
        for piece in pieces:
            await self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(0.005)
        if end:
            await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> bool:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class Peer:
    """A server on loopback; `exchanges` holds what it was asked, `connections` how many were made."""

    handler: Handler
    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    failures: list[BaseException] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        self.writers.append(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                exchange = Exchange(head, b"", reader, writer, connection)
                exchange.body = await reader.readexactly(int(exchange.headers.get("content-length", "0")))
                self.exchanges.append(exchange)
                await self.handler(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001  shown when the test ends
            self.failures.append(error)
        finally:
            writer.close()


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    """Start a peer with a handler for its requests: `await peer(handler)`; with `tls` it speaks HTTPS."""
    servers: list[asyncio.Server] = []
    peers: list[Peer] = []

    async def start(handler: Handler, tls: ssl.SSLContext | None = None) -> Peer:
        made = Peer(handler)
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        servers.append(server)
        peers.append(made)
        return made

    yield start
    for server in servers:
        server.close()
    for made in peers:
        for writer in made.writers:
            writer.transport.abort()
    await asyncio.sleep(0.01)
    assert [failure for made in peers for failure in made.failures] == []
