"""The contract of everything that speaks HTTP to providers: httpx's transport interface, and what is promised beyond it.

Foreign exceptions become httpx's on the line that calls out; nothing is redirected, decompressed, remembered in cookies or taken from the
environment; only connecting has a time limit (callers have their own clocks); and a request is sent once more if a connection that lay
idle turns out to have been closed by the peer.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace_server.providers.httpx_api import httpx

KEEPALIVE_SECONDS = 30.0
"""How long an idle connection is kept."""
MAX_HEADER_BYTES = 64 * 1_024
"""Of one header line; the stock transport has a fixed limit of about 100 KB for all of them."""
RESEND_SECONDS = 1.0
"""A reused connection that fails within this time was closed while it lay idle. Later, the provider may have begun to work."""

BEGINS = "headrace.begins"
"""The extension of a request that is called when its connection stands."""

_SENDABLE = re.compile(rb"[\t\x20-\x7e]*")


class HeadersTooLarge(httpx.RemoteProtocolError):
    """The head of an answer is larger than we read."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def describe(error: BaseException | None) -> str:
    """An exception in words that cannot hold anything of the request."""
    known = (cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror)
    return next(known, type(error).__name__)


@dataclass(slots=True)
class Sending:
    """What is learnt of a request on its way."""

    begins: Callable[[], None]
    """To be called when its connection stands: from then on bytes of it may reach the provider."""
    reused: bool = False
    """Whether it went out on a connection that had lain idle."""


class Transport(httpx.AsyncBaseTransport):
    """What all transports share: headers are checked before anything is sent, and the one free resend."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        raise NotImplementedError

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and wait for the head of its answer; see httpx.AsyncBaseTransport."""
        headers = request.headers.raw
        if not _SENDABLE.fullmatch(b"".join([value for _, value in headers])):  # said without the value: it may be a key
            wrong = next(name for name, value in headers if not _SENDABLE.fullmatch(value))
            raise httpx.LocalProtocolError(f"the value of the header {wrong.decode('ascii', 'replace')!r} cannot be sent")
        url = request.url
        if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65_535:
            raise httpx.UnsupportedProtocol("the address must be http:// or https://, a host, and a port up to 65535")
        begins = request.extensions.get(BEGINS) or (lambda: None)
        sending, now = Sending(begins), asyncio.get_running_loop().time
        begun = now()
        try:
            return await self._send(request, sending)
        except HeadersTooLarge:
            raise
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if not sending.reused or now() - begun > RESEND_SECONDS:
                raise
        return await self._send(request, Sending(begins))

    async def _send(self, request: httpx.Request, sending: Sending) -> httpx.Response:
        raise NotImplementedError
