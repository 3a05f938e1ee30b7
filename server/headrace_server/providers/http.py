"""Requests to providers, and the transport that they go to."""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import certifi

from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.transport import Transport
from headrace_server.providers.transport_httptools import HttptoolsTransport

TransportKind = Literal["httptools", "aiohttp", "httpx"]


def make_transport(kind: TransportKind = "httptools", *, verify: ssl.SSLContext | None = None) -> Transport:
    """What speaks HTTP to all providers. `verify` replaces the context that trusts the system's and certifi's authorities.

    The kinds keep the same contract, so each can take another's place; the first costs least.
    """
    return _transport(kind)(verify or tls_context())


def _transport(kind: TransportKind) -> type[Transport]:
    match kind:
        case "httptools":
            return HttptoolsTransport
        case "aiohttp":
            from headrace_server.providers.transport_aiohttp import AiohttpTransport  # here, because it brings 10 MB with it

            return AiohttpTransport
        case "httpx":
            from headrace_server.providers.transport_httpx import StockTransport

            return StockTransport


def post(url: str, headers: Mapping[str, str], body: bytes, *, connect_timeout: float) -> httpx.Request:
    """A request as transports take it; `connect_timeout` in seconds. Raises httpx.InvalidURL, UnicodeEncodeError.

    It goes to the transport and not through httpx's client, whose cookies, redirects and environment are not wanted here. What httpx
    would find out about the body of a request with `content` is known here, and said at once.
    """
    timeout = {"connect": connect_timeout, "read": None, "write": None, "pool": None}
    parsed, host = _url(url)
    request = httpx.Request(
        "POST",
        parsed,
        headers={"host": host, **_HEADERS, **headers, "content-length": str(len(body))},
        stream=httpx.ByteStream(body),
        extensions={"timeout": timeout},
    )
    request.read()
    return request


_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "headrace", "connection": "keep-alive"}


@lru_cache(maxsize=1024)
def _url(url: str) -> tuple[httpx.URL, str]:
    """A URL, and what the header `host` says for it."""
    parsed = httpx.URL(url)
    return parsed, parsed.netloc.decode("ascii")


def tls_context() -> ssl.SSLContext:
    """Certificates are verified, TLS is 1.2 at least."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
