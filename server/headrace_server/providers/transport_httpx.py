"""httpx's own transport, so that the same contract can be had without any other."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.transport import KEEPALIVE_SECONDS, HeadersTooLarge, Sending, Transport


class StockTransport(Transport):
    """httpx's own transport, with the resend that it lacks."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._inner = httpx.AsyncHTTPTransport(
            verify=verify,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
        )

    async def _send(self, request: httpx.Request, sending: Sending) -> httpx.Response:
        sending.reused = True

        async def note(event: str, _info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.started":
                sending.reused = False
            elif event == "http11.send_request_headers.started":
                sending.begins()

        trace: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {"trace": note}
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
