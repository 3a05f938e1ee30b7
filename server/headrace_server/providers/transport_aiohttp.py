"""httpx's transport interface over aiohttp."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.transport import KEEPALIVE_SECONDS, MAX_HEADER_BYTES, HeadersTooLarge, Sending, Transport, causes, describe


class AiohttpTransport(Transport):
    """httpx's transport interface over an aiohttp session, which is made with the first request."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            tracing.on_connection_create_end.append(_note_connected)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._verify, limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
                trace_configs=[tracing],
            )
        return self._session

    async def _send(self, request: httpx.Request, sending: Sending) -> httpx.Response:
        connect = request.extensions.get("timeout", {}).get("connect")
        try:
            response = await self._open().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                data=await request.aread(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                trace_request_ctx=sending,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failed = _translated(error)
        else:
            return httpx.Response(response.status, headers=list(response.raw_headers), stream=_Body(response))
        raise failed  # outside of the handler, so that only the causes chosen by _translated hang on it

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.reused = True
    context.trace_request_ctx.begins()


async def _note_connected(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionCreateEndParams
) -> None:
    context.trace_request_ctx.begins()


class _Body(httpx.AsyncByteStream):
    """The body of an answer; each read gives all that has arrived."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self._protocol = response.connection.protocol if response.connection else None
        self._closed = self._protocol.closed if self._protocol is not None else None
        self._ends_with_connection = "content-length" not in response.headers and "transfer-encoding" not in response.headers
        if self._closed is not None:
            self._closed.add_done_callback(self._connection_closed)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            # What came before the connection broke counts, though aiohttp would no longer give it out.
            data = self._content._read_nowait(-1)
            if not data:
                raise self._reset() or _translated(error) from error
        if not data:
            raise (self._ends_with_connection and self._reset()) or StopAsyncIteration
        return data

    def _reset(self) -> httpx.ReadError | None:
        """The error of a connection that was reset, which aiohttp does not tell by the body."""
        error = self._protocol.exception() if self._protocol is not None else None
        return httpx.ReadError(describe(error)) if isinstance(error, OSError) else None

    def _connection_closed(self, closed: "asyncio.Future[None]") -> None:
        """End a body that would wait for ever: aiohttp closes a connection whose chunks are broken without telling the body."""
        _retrieve(closed)
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed.remove_done_callback(self._connection_closed)
            # The connection may serve others for long, and the future outlives this body: exactly one callback stays.
            self._closed.remove_done_callback(_retrieve)
            self._closed.add_done_callback(_retrieve)
        self._response.close()  # the connection of a complete answer has gone back to the pool before this


def _retrieve(closed: "asyncio.Future[None]") -> None:
    """Look at a future's exception, so that asyncio does not complain that nobody did."""
    if not closed.cancelled():
        closed.exception()


_TRANSLATIONS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (OSError, httpx.ReadError),
    (ValueError, httpx.UnsupportedProtocol),
)


def _translated(error: Exception) -> httpx.TransportError:
    if any(isinstance(cause, LineTooLong) for cause in causes(error)):
        kind: type[httpx.TransportError] = HeadersTooLarge
    else:
        kind = next((ours for theirs, ours in _TRANSLATIONS if isinstance(error, theirs)), httpx.RemoteProtocolError)
    ours = kind(describe(error))
    # A ClientResponseError shows the headers of the request, and so the key.
    ours.__cause__ = next((cause for cause in causes(error) if not isinstance(cause, aiohttp.ClientResponseError)), None)
    return ours
