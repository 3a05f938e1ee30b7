"""HTTP/1.1 over asyncio's own transports: the httpx interface with as little as can be between the socket and who reads.

Parsing is httptools' (llhttp, written in C), connecting aiohappyeyeballs', TLS the event loop's. What is left is one exchange at a time on
a connection, connections that are kept, and reading all that is at hand with one read.
"""

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import cast

import aiohappyeyeballs
import httptools

from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.transport import KEEPALIVE_SECONDS, MAX_HEADER_BYTES, HeadersTooLarge, Sending, Transport, describe

MOST_UNREAD = 256 * 1024
"""Bytes of a body that may wait for their reader before the socket is not read any more: then the peer has to wait."""
SECOND_ADDRESS_AFTER = 0.25
"""Seconds after which the next address of a host is tried beside the first (RFC 8305)."""

_Origin = tuple[bool, str, int]
"""Whether TLS is spoken, host and port."""


class HttptoolsTransport(Transport):
    """httpx's transport interface; see the module."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._idle: defaultdict[_Origin, list[_Connection]] = defaultdict(list)
        self._open: set[_Connection] = set()

    async def _send(self, request: httpx.Request, sending: Sending) -> httpx.Response:
        connection = self._take_idle(request.url)
        if connection is None:
            connection = await self._connect(request.url, request.extensions.get("timeout", {}).get("connect"))
        else:
            sending.reused = True
        sending.begins()
        try:
            connection.send(_head(request) + await request.aread())
            status, headers = await connection.head()
        except BaseException:
            connection.let_go()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(connection, self._give_back))

    # ------------------------------------------------------------ connections

    def _take_idle(self, url: httpx.URL) -> "_Connection | None":
        idle = self._idle[_origin(url)]
        while idle:
            connection = idle.pop()
            connection.is_waited_for()
            if not connection.is_closed:
                return connection
        return None

    async def _connect(self, url: httpx.URL, seconds: float | None) -> "_Connection":
        secure, host, port = origin = _origin(url)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=SECOND_ADDRESS_AFTER, loop=loop)
                _, connection = await loop.create_connection(
                    lambda: _Connection(origin, self._open),
                    sock=connected,
                    ssl=self._verify if secure else None,
                    server_hostname=host if secure else None,
                )
        except TimeoutError as error:
            failed: httpx.TransportError = httpx.ConnectTimeout(describe(error))
            failed.__cause__ = error
        except (OSError, ssl.SSLError) as error:
            failed = httpx.ConnectError(describe(error))
            failed.__cause__ = error
        else:
            return connection
        raise failed

    def _give_back(self, connection: "_Connection") -> None:
        if connection.can_be_kept:
            connection.rest()
            self._idle[connection.origin].append(connection)
        else:
            connection.let_go()

    async def aclose(self) -> None:
        """Close all connections."""
        self._idle.clear()
        await asyncio.gather(*[connection.close() for connection in self._open])


def _origin(url: httpx.URL) -> _Origin:
    secure = url.scheme == "https"
    return secure, url.host, url.port or (443 if secure else 80)


def _head(request: httpx.Request) -> bytes:
    lines = [request.method.encode("ascii") + b" " + request.url.raw_path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One connection: a request goes out, the head of an answer comes, then its body; and again."""

    def __init__(self, origin: _Origin, those_open: "set[_Connection]") -> None:
        """`those_open` holds the connection for as long as it is open."""
        self.origin = origin
        self._those_open = those_open
        self._gone: asyncio.Future[None] | None = None
        """Done once the connection is gone, where somebody waits for that."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._wakened: asyncio.Future[None] | None = None
        self._expires: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._status: int | None = None
        self._ends_with_connection = False
        self._pieces: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._is_complete = False
        self._keep_alive = False
        self._error: httpx.TransportError | None = None

    # ------------------------------------------------------------ for the transport

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent over it any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def can_be_kept(self) -> bool:
        """Whether the answer was read to its end, and another request may follow."""
        whole = self._is_complete and not self._pieces and self._error is None
        return whole and self._keep_alive and not self.is_closed

    def send(self, data: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._transport.write(data)

    def rest(self) -> None:
        """Lie idle until the next request, for so long at most."""
        self._begin()
        self._expires = self._loop.call_later(KEEPALIVE_SECONDS, self.abort)

    def is_waited_for(self) -> None:
        """It lies idle no longer."""
        if self._expires is not None:
            self._expires.cancel()
            self._expires = None

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.is_waited_for()
        if self._transport is not None:
            self._transport.abort()

    def let_go(self) -> None:
        """Close at once; nobody reads it any more."""
        self.abort()
        self._error = None  # its traceback, where it was raised, refers to us

    def close(self) -> "asyncio.Future[None]":
        """Close at once; what it returns is done once the connection is gone."""
        self._gone = self._gone or self._loop.create_future()
        self.abort()
        return self._gone

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers of the answer. Raises httpx.TransportError."""
        while self._status is None:
            if self._error is not None:
                raise self._error
            await self._more()
        headers, self._headers = self._headers, []
        return self._status, headers

    async def read(self) -> bytes:
        """All bytes of the body that are at hand; none at its end. Raises httpx.TransportError, once what came before was read."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return b""
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        self._unread = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    async def _more(self) -> None:
        self._wakened = self._loop.create_future()
        try:
            await self._wakened
        finally:
            self._wakened = None

    def _wake(self) -> None:
        if self._wakened is not None and not self._wakened.done():
            self._wakened.set_result(None)

    def _fail(self, error: httpx.TransportError) -> None:
        if self._error is None and not self._is_complete:
            self._error = error
        self._wake()

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._those_open.add(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._expires is not None or self._is_complete:
            return self.abort()  # nobody asked for this
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            broken = httpx.RemoteProtocolError("the answer is not HTTP/1.1")
            broken.__cause__ = error
            self._fail(broken)
        if self._status is None and self._head_size > MAX_HEADER_BYTES:
            self._fail(HeadersTooLarge("headers too large"))
        if self._error is not None:
            return self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._ends_with_connection and exc is None and self._error is None:
            self._is_complete = True
        elif exc is not None:
            lost = httpx.ReadError(describe(exc))
            lost.__cause__ = exc
            self._fail(lost)
        else:
            self._fail(httpx.RemoteProtocolError("the peer closed the connection"))
        self._transport = None
        del self._parser  # they refer to each other
        self.is_waited_for()
        self._those_open.discard(self)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._wake()

    # ------------------------------------------------------------ httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer, or one that trails its body."""
        if self._status is None:
            self._head_size += len(name) + len(value)
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete; that of an interim answer (100 to 199) does not count."""
        if self._is_beyond_the_end():
            return
        if self._parser.get_status_code() < 200:
            self._headers.clear()
        elif self._head_size <= MAX_HEADER_BYTES:
            framing = {name.lower() for name, _ in self._headers}
            self._ends_with_connection = b"content-length" not in framing and b"transfer-encoding" not in framing
            self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Some of the body, without its framing."""
        if self._is_beyond_the_end():
            return
        self._pieces.append(data)
        self._unread += len(data)
        if self._unread > MOST_UNREAD and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer has ended as its framing says."""
        if self._status is not None and not self._is_beyond_the_end():
            self._is_complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _is_beyond_the_end(self) -> bool:
        """Whether more came with the answer than the answer: it counts for nothing, and the connection is not used again."""
        self._keep_alive = self._keep_alive and not self._is_complete
        return self._is_complete


class _Body(httpx.AsyncByteStream):
    """The body of an answer; each read gives all that has arrived."""

    def __init__(self, connection: _Connection, give_back: Callable[[_Connection], None]) -> None:
        self._connection: _Connection | None = connection
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = b"" if self._connection is None else await self._connection.read()
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._give_back(connection)
