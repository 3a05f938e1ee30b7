"""Calls providers: encode, send, and read the answer in whichever form it comes. Every failure becomes a ProviderFault here."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety, Subreason, Violation
from headrace_server.domain.events import Delta
from headrace_server.domain.ports import WallClock
from headrace_server.domain.provider import Provider
from headrace_server.domain.redaction import REDACTED, SHORTEST_SECRET, redact
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers import faults
from headrace_server.providers.dialect import Decoder, Dialect, HttpFailure, HttpRequest
from headrace_server.providers.http import MAX_HEADER_BYTES, HeadersTooLarge, causes, describe
from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.sse import MAX_EVENT, Scanner

MAX_RESPONSE = 16 * 1_024 * 1_024
"""Bytes that one answer may have by default."""
MAX_ERROR_BODY = 1_024 * 1_024
"""Bytes that are read of an error's body."""
ERROR_BODY_SECONDS = 5.0
"""How long is waited for an error's body: its status says enough if it does not come."""

_SENDABLE = re.compile(r"[\t\x20-\x7e]*")
_BLANK = b"\xef\xbb\xbf \t\r\n"
_LINES_BEGIN = b":deir"
"""How a line of an event stream begins: a comment, data, event, id, retry. JSON begins like none of them."""


class HttpUpstream:
    """All providers, over one HTTP client; implements ports.Upstream.

    `dialect_for` is the registry's, `max_response` and `max_event` are in bytes. Whoever made the client closes it.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        dialect_for: Callable[[Provider], Dialect],
        clock: WallClock,
        *,
        max_response: int = MAX_RESPONSE,
        max_event: int = MAX_EVENT,
    ) -> None:
        self._client = client
        self._clock = clock
        self._max_response = max_response
        self._max_event = max_event
        self._dialect_for = dialect_for

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request this provider cannot express."""
        return self._dialect_for(provider).check(request, provider)

    async def call(
        self, request: GenerateRequest, provider: Provider, model: str, *, traceparent: str, connect_timeout: float
    ) -> "HttpCall":
        """Encode, connect, send, wait for the headers; see ports.Upstream."""
        dialect = self._dialect_for(provider)
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        encoded = dialect.encode(request, provider, model, stream=request.stream)
        response = await self._send(encoded, traceparent, connect_timeout)
        try:
            if response.status_code != httpx.codes.OK:
                raise ProviderFault(_without(key, await self._refusal(dialect, response, key)))
            if response.headers.get("content-encoding", "identity") != "identity":
                raise faults.malformed("the answer is compressed, though that was not asked for")
            return HttpCall(
                response,
                dialect.decoder(provider),
                key=key,
                whole=not request.stream,
                max_response=self._max_response,
                max_event=self._max_event,
            )
        except BaseException:
            with contextlib.suppress(httpx.HTTPError):
                await response.aclose()
            raise

    async def _send(self, encoded: HttpRequest, traceparent: str, connect_timeout: float) -> httpx.Response:
        headers = {**encoded.headers, "traceparent": traceparent}
        _check_sendable(headers)
        timeout = httpx.Timeout(None, connect=connect_timeout)
        try:
            request = self._client.build_request("POST", encoded.url, headers=headers, content=encoded.body, timeout=timeout)
            return await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProviderFault(_not_answered(error)) from error

    async def _refusal(self, dialect: Dialect, response: httpx.Response, key: str) -> Fault:
        body = b"" if "content-encoding" in response.headers else await _error_body(response)
        if len(key) >= SHORTEST_SECRET:  # before anything is cut: half a key would not be found afterwards
            body = body.replace(key.encode(), REDACTED.encode())
        return dialect.classify(HttpFailure(response.status_code, dict(response.headers), body, self._clock()))


class HttpCall:
    """One call of a provider; implements ports.Call."""

    def __init__(self, response: httpx.Response, decoder: Decoder, *, key: str, whole: bool, max_response: int, max_event: int) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self.answer = decoder.answer
        self.answer.provider_request_id = faults.request_id(response.headers)
        self.sent = True
        self.whole = whole
        self._response = response
        self._chunks = aiter(response.stream)
        self._decoder = decoder
        self._key = key
        self._max_response = max_response
        self._max_event = max_event
        self._size = 0
        self._head = b""
        self._body: _Events | _Whole | None = None
        self._body_ended = False
        self._fault: ProviderFault | None = None

    async def read(self) -> list[Delta] | None:
        """The deltas in all bytes that are at hand; see ports.Call."""
        if self._fault is not None:
            raise self._fault
        if not self._body_ended:
            try:
                data = await anext(self._chunks, None)
            except httpx.HTTPError as error:
                raise self._told(_cut(error)) from error
            if data is not None:
                return self._decode(lambda deltas: self._take(data, deltas))
            self._body_ended = True
            if self._body is not None and (deltas := self._decode(self._body.close)):
                return deltas
        self._decode(lambda _: self._decoder.finish())
        return None

    async def close(self) -> None:
        """Abort what is under way, or give the connection back; see ports.Call."""
        # Whatever goes wrong here, the connection is gone, and there is nobody to tell.
        with contextlib.suppress(Exception):
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        with contextlib.suppress(Exception):
            await self._response.aclose()

    def _decode(self, step: Callable[[list[Delta]], None]) -> list[Delta]:
        """What a step of decoding appends. Where it fails after some deltas, those come first and the fault with the next read."""
        deltas: list[Delta] = []
        try:
            step(deltas)
        except ProviderFault as fault:
            self._fault = self._told(fault)
        except Exception as error:  # noqa: BLE001  decoders raise nothing else; if one does, its call fails and not the service
            self._fault = self._told(faults.malformed(f"the answer could not be read ({type(error).__name__})"))
        if self._fault is not None and not deltas:
            raise self._fault
        return deltas

    def _take(self, data: bytes, deltas: list[Delta]) -> None:
        self._size += len(data)
        if self._size > self._max_response:
            raise faults.too_large("the answer", self._max_response)
        if self._body is None:
            data = self._head = self._head + data
            first = data.lstrip(_BLANK)[:1]
            if not first:
                return
            self.whole = first not in _LINES_BEGIN
            self._body = _Whole(self._decoder) if self.whole else _Events(self._decoder, self._max_event)
        self._body.feed(data, deltas)

    def _told(self, fault: ProviderFault) -> ProviderFault:
        """The fault, with what only the call knows."""
        known = replace(
            fault.fault,
            http_status=fault.fault.http_status or self._response.status_code,
            provider_request_id=fault.fault.provider_request_id or self.answer.provider_request_id,
        )
        return ProviderFault(_without(self._key, known))


class _Events:
    """A body that is an event stream: each event is decoded as it comes."""

    def __init__(self, decoder: Decoder, max_event: int) -> None:
        self._decode = decoder.event
        self._scanner = Scanner(max_event)

    def feed(self, data: bytes, deltas: list[Delta]) -> None:
        for name, payload in self._scanner.feed(data):
            deltas += self._decode(name, payload)

    def close(self, deltas: list[Delta]) -> None:
        """An event that no blank line ended counts if it is whole; otherwise the body was cut within it."""
        try:
            for name, payload in self._scanner.close():
                deltas += self._decode(name, payload)
        except ProviderFault as fault:
            if fault.fault.subreason == Subreason.MALFORMED_EVENT:
                raise faults.truncated("the answer ended within an event") from fault
            raise


class _Whole:
    """A body that is one JSON text: it is decoded when it has ended."""

    def __init__(self, decoder: Decoder) -> None:
        self._decode = decoder.whole
        self._pieces: list[bytes] = []

    def feed(self, data: bytes, _deltas: list[Delta]) -> None:
        self._pieces.append(data)

    def close(self, deltas: list[Delta]) -> None:
        deltas += self._decode(b"".join(self._pieces))


# ---------------------------------------------------------------- failures of the transport


def _check_sendable(headers: Mapping[str, str]) -> None:
    if not all(_SENDABLE.fullmatch(value) for value in headers.values()):
        raise ProviderFault(_bad_key())


def _bad_key() -> Fault:
    return Fault(
        code=ErrorCode.AUTHENTICATION_ERROR,
        subreason=Subreason.BAD_CREDENTIAL_FORMAT,
        message="the provider's API key holds characters that cannot be sent in a header",
        replay_safety=ReplaySafety.NOT_SENT,
    )


def _not_answered(error: Exception) -> Fault:
    """What it means that no headers came."""
    match error:
        case httpx.LocalProtocolError():
            return _bad_key()
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            bad_certificate = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))
            message, retryable, safety = f"cannot connect to the provider: {describe(error)}", not bad_certificate, ReplaySafety.NOT_SENT
        case HeadersTooLarge():
            return faults.too_large("the head of the answer", MAX_HEADER_BYTES).fault
        case httpx.TransportError() if not isinstance(error, httpx.UnsupportedProtocol):
            message, retryable, safety = f"the connection broke before an answer: {describe(error)}", True, ReplaySafety.UNCERTAIN
        case _:
            message, retryable, safety = "the provider's address cannot be used", False, ReplaySafety.NOT_SENT
    return Fault(code=ErrorCode.NETWORK_ERROR, message=message, retryable=retryable, replay_safety=safety)


def _cut(error: httpx.HTTPError) -> ProviderFault:
    """What it means that the body broke off."""
    return faults.truncated(f"the connection broke within the answer: {describe(error)}")


async def _error_body(response: httpx.Response) -> bytes:
    """As much as comes of an error's body."""
    body = bytearray()
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for data in response.aiter_raw():
                body += data
                if len(body) >= MAX_ERROR_BODY:
                    break
    return bytes(body[:MAX_ERROR_BODY])


def _without(key: str, fault: Fault) -> Fault:
    """The fault without the provider's key, which some providers repeat in their errors."""
    return replace(
        fault,
        message=redact(fault.message, key),
        provider_text=redact(fault.provider_text, key),
        provider_type=redact(fault.provider_type, key),
        provider_code=redact(fault.provider_code, key),
        provider_request_id=redact(fault.provider_request_id, key),
        violations=tuple(Violation(field=redact(v.field, key), description=redact(v.description, key)) for v in fault.violations),
    )
