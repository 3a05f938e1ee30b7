"""HTTP to providers: the httpx interface over aiohttp, whose parser is written in C and hands out all that is at hand with one read.

httpx's own transport stays selectable and obeys the same contract: foreign exceptions become httpx's on the line that calls out; nothing
is redirected, decompressed, remembered in cookies or taken from the environment; only connecting has a time limit (callers have their
own clocks); and a request is sent once more if a connection that lay idle turns out to have been closed by the peer.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import SimpleNamespace
from typing import Any, Literal

import aiohttp
import certifi
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from headrace_server.providers.httpx_api import httpx

TransportKind = Literal["aiohttp", "httpx"]

KEEPALIVE_SECONDS = 30.0
"""How long an idle connection is kept."""
MAX_HEADER_BYTES = 64 * 1_024
"""Of one header line; the stock transport has a fixed limit of about 100 KB for all of them."""
RESEND_SECONDS = 1.0
"""A reused connection that fails within this time was closed while it lay idle. Later, the provider may have begun to work."""

_SENDABLE = re.compile(rb"[\t\x20-\x7e]*")


class HeadersTooLarge(httpx.RemoteProtocolError):
    """The head of an answer is larger than we read."""


def make_client(kind: TransportKind = "aiohttp", *, verify: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """The client for all providers. `verify` replaces the context that trusts the system's and certifi's authorities."""
    context = verify or tls_context()
    transport = AiohttpTransport(context) if kind == "aiohttp" else StockTransport(context)
    return httpx.AsyncClient(
        transport=transport,
        headers={"accept-encoding": "identity", "user-agent": "headrace"},
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,
        follow_redirects=False,
        trust_env=False,
    )


def tls_context() -> ssl.SSLContext:
    """Certificates are verified, TLS is 1.2 at least."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@dataclass(slots=True)
class _Sending:
    """What is learnt of a request on its way."""

    reused: bool = False
    """Whether it went out on a connection that had lain idle."""


class _Transport(httpx.AsyncBaseTransport):
    """What both transports share: headers are checked before anything is sent, and the one free resend."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name, value in request.headers.raw:
            if not _SENDABLE.fullmatch(value):  # said without the value: it may be a key
                raise httpx.LocalProtocolError(f"the value of the header {name.decode('ascii', 'replace')!r} cannot be sent")
        if (request.url.port or 0) > 65_535:
            raise httpx.UnsupportedProtocol("there is no such port")
        sending, now = _Sending(), asyncio.get_running_loop().time
        begun = now()
        try:
            return await self._send(request, sending)
        except HeadersTooLarge:
            raise
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if not sending.reused or now() - begun > RESEND_SECONDS:
                raise
        return await self._send(request, _Sending())

    async def _send(self, request: httpx.Request, sending: _Sending) -> httpx.Response:
        raise NotImplementedError


class AiohttpTransport(_Transport):
    """httpx's transport interface over an aiohttp session, which is made with the first request."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._verify, limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
                trace_configs=[tracing],
            )
        return self._session

    async def _send(self, request: httpx.Request, sending: _Sending) -> httpx.Response:
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


def describe(error: BaseException | None) -> str:
    """An exception in words that cannot hold anything of the request."""
    known = (cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror)
    return next(known, type(error).__name__)


class StockTransport(_Transport):
    """httpx's own transport, with the resend that it lacks."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._inner = httpx.AsyncHTTPTransport(
            verify=verify,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
        )

    async def _send(self, request: httpx.Request, sending: _Sending) -> httpx.Response:
        sending.reused = True

        async def note_connect(event: str, _info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.started":
                sending.reused = False

        trace: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {"trace": note_connect}
        request.extensions = {**request.extensions, **trace}
        try:
            return await self._inner.handle_async_request(request)
        except httpx.RemoteProtocolError as error:
            if "too long" in str(error):
                raise HeadersTooLarge("headers too large") from error
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
