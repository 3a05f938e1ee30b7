"""Calls providers: encode, send, and read the answer in whichever form it comes. Every failure becomes a ProviderFault here."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety, Subreason, Violation
from headrace_server.domain.events import Delta
from headrace_server.domain.limits import LimitType
from headrace_server.domain.ports import Unknowns, WallClock
from headrace_server.domain.provider import Provider
from headrace_server.domain.redaction import REDACTED, SHORTEST_SECRET, redact
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers import faults
from headrace_server.providers.dialect import Decoder, Dialect, HttpFailure, HttpRequest
from headrace_server.providers.http import post
from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.limit_headers import left
from headrace_server.providers.sse import MAX_EVENT, Scanner
from headrace_server.providers.transport import BEGINS, MAX_HEADER_BYTES, HeadersTooLarge, causes, describe

MAX_RESPONSE = 16 * 1_024 * 1_024
"""Bytes that one answer may have by default."""
MAX_PIECES = 250_000
"""Pieces that one answer may have by default: more than one for each token of the longest answer that any model gives."""
MAX_ERROR_BODY = 2 * 1_024 * 1_024
"""Bytes that are read of an error's body: it tells what is wrong only where it is whole, also around a text of 1 MB."""
ERROR_BODY_SECONDS = 5.0
"""How long is waited for an error's body: its status says enough if it does not come."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
"""Characters that nobody escapes."""
_SENDABLE = re.compile(r"[\t\x20-\x7e]*")
_BLANK = b"\xef\xbb\xbf \t\r\n"
_LINES_BEGIN = b":deir"
"""How a line of an event stream begins: a comment, data, event, id, retry. JSON begins like none of them."""


class HttpUpstream:
    """All providers, over one HTTP transport; implements ports.Upstream.

    `dialect_for` is the registry's, `max_response` and `max_event` are in bytes, `max_pieces` counts the pieces that decoders read out
    of one answer. `unknowns` is told of what no dialect understands. Whoever made the transport closes it.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        dialect_for: Callable[[Provider], Dialect],
        clock: WallClock,
        *,
        max_response: int = MAX_RESPONSE,
        max_event: int = MAX_EVENT,
        max_pieces: int = MAX_PIECES,
        unknowns: Unknowns | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._max_response = max_response
        self._max_event = max_event
        self._max_pieces = max_pieces
        self._unknowns = unknowns
        self._dialect_for = dialect_for

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request this provider cannot express."""
        return self._dialect_for(provider).check(request, provider)

    async def call(
        self,
        request: GenerateRequest,
        provider: Provider,
        model: str,
        *,
        traceparent: str,
        connect_timeout: float,
        begins: Callable[[], None] | None = None,
    ) -> "HttpCall":
        """Encode, connect, send, wait for the headers; see ports.Upstream."""
        dialect = self._dialect_for(provider)
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        encoded = dialect.encode(request, provider, model, stream=request.stream)
        response = await self._send(encoded, traceparent, connect_timeout, begins)
        try:
            headers = dict(response.headers.items())  # httpx looks through all of them for each that is asked for
            told = left(dialect.limit_headers, headers, self._clock())
            if response.status_code != httpx.codes.OK:
                fault = _without(key, await self._refusal(dialect, response, headers, key))
                if self._unknowns is not None and fault.code is ErrorCode.UNKNOWN_ERROR:
                    self._unknowns.unknown_error(provider, fault.http_status)
                raise ProviderFault(replace(fault, left=told))
            if headers.get("content-encoding", "identity") != "identity":
                raise faults.malformed("the answer is compressed, though that was not asked for")
            decoder = dialect.decoder(provider)
            decoder.answer.most_pieces = self._max_pieces
            decoder.answer.provider_request_id = faults.request_id(headers)
            return HttpCall(
                response,
                decoder,
                key=key,
                whole=not request.stream,
                left=told,
                max_response=self._max_response,
                max_event=self._max_event,
                provider=provider,
                unknowns=self._unknowns,
            )
        except BaseException:
            with contextlib.suppress(httpx.HTTPError):
                await response.aclose()
            raise

    async def _send(
        self, encoded: HttpRequest, traceparent: str, connect_timeout: float, begins: Callable[[], None] | None
    ) -> httpx.Response:
        headers = {**encoded.headers, "traceparent": traceparent}
        _check_sendable(headers)
        try:
            request = post(encoded.url, headers, encoded.body, connect_timeout=connect_timeout)
            request.extensions[BEGINS] = begins
            return await self._transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProviderFault(_not_answered(error)) from error

    async def _refusal(self, dialect: Dialect, response: httpx.Response, headers: Mapping[str, str], key: str) -> Fault:
        body = b"" if "content-encoding" in headers else await _error_body(response)
        if len(key) >= SHORTEST_SECRET:  # before anything is cut: half a key would not be found afterwards
            body = body.replace(key.encode(), REDACTED.encode())
        return dialect.classify(HttpFailure(response.status_code, headers, body, self._clock()))


class HttpCall:
    """One call of a provider; implements ports.Call."""

    def __init__(
        self,
        response: httpx.Response,
        decoder: Decoder,
        *,
        key: str,
        whole: bool,
        left: Mapping[LimitType, int],
        max_response: int,
        max_event: int,
        provider: Provider,
        unknowns: Unknowns | None,
    ) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self.answer = decoder.answer
        self.sent = True
        self.whole = whole
        self.left = left
        self.fault: Fault | None = None
        """What is wrong with the answer, once that is known."""
        self._status = response.status_code
        self._stream = response.stream
        self._chunks = aiter(response.stream)
        self._decoder = decoder
        self._key = key
        self._max_response = max_response
        self._max_event = max_event
        self._provider = provider
        self._unknowns = unknowns
        self._size = 0
        self._head = b""
        self._body: _Events | _Whole | None = None
        self._body_ended = False

    async def read(self) -> list[Delta] | None:
        """The deltas in all bytes that are at hand; see ports.Call."""
        if self.fault is not None:
            raise ProviderFault(self.fault)
        if not self._body_ended:
            try:
                data = await anext(self._chunks, None)
            except httpx.HTTPError as error:
                self.fault = self._told(_cut(error))
                raise ProviderFault(self.fault) from error
            if data is not None:
                return self._decode(lambda deltas: self._take(data, deltas))
            self._body_ended = True
            if self._body is not None and (deltas := self._decode(self._body.close)):
                return deltas
        self._decode(lambda _: self._decoder.finish())
        self._hide_words()
        return None

    async def close(self) -> None:
        """Abort what is under way, or give the connection back; see ports.Call."""
        self._count_unknown()
        # Whatever goes wrong here, the connection is gone, and there is nobody to tell.
        with contextlib.suppress(Exception):
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        with contextlib.suppress(Exception):
            await self._stream.aclose()

    def _count_unknown(self) -> None:
        """Count, once, what of the answer no dialect understands."""
        unknowns, self._unknowns = self._unknowns, None
        if unknowns is None:
            return
        if self.answer.unknown_events:
            unknowns.unknown_events(self._provider, self.answer.unknown_events)
        if self.fault is not None and self.fault.code is ErrorCode.UNKNOWN_ERROR:
            unknowns.unknown_error(self._provider, self.fault.http_status)

    def _decode(self, step: Callable[[list[Delta]], None]) -> list[Delta]:
        """What a step of decoding appends. Where it fails after some deltas, those come first and the fault with the next read."""
        deltas: list[Delta] = []
        try:
            step(deltas)
        except ProviderFault as fault:
            self.fault = self._told(fault)
        except Exception as error:  # noqa: BLE001  decoders raise nothing else; if one does, its call fails and not the service
            self.fault = self._told(faults.malformed(f"the answer could not be read ({type(error).__name__})"))
        if self.fault is not None and not deltas:
            raise ProviderFault(self.fault)
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

    def _hide_words(self) -> None:
        """The provider's names for things are no place for a key either."""
        for name in ("model", "native_finish_reason", "provider_request_id"):
            setattr(self.answer, name, _hide(self._key, getattr(self.answer, name)))

    def _told(self, fault: ProviderFault) -> Fault:
        """The fault, with what only the call knows."""
        self._hide_words()
        known = replace(
            fault.fault,
            http_status=fault.fault.http_status or self._status,
            provider_request_id=fault.fault.provider_request_id or self.answer.provider_request_id,
        )
        return _without(self._key, known)


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
    if not _SENDABLE.fullmatch("".join(headers.values())):
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
        message=_hide(key, fault.message),
        provider_text=_hide(key, fault.provider_text),
        provider_type=_hide(key, fault.provider_type),
        provider_code=_hide(key, fault.provider_code),
        provider_request_id=_hide(key, fault.provider_request_id),
        violations=tuple(Violation(field=_hide(key, v.field), description=_hide(key, v.description)) for v in fault.violations),
    )


def _hide(key: str, text: str) -> str:
    """The text without the key: plain, escaped as in JSON or a URL, or cut where the text was cut."""
    text = redact(text, key)
    if len(key) < SHORTEST_SECRET:
        return text
    if not _PLAIN.fullmatch(key):
        text = re.sub("".join(map(_escapes, key)), REDACTED, text, flags=re.IGNORECASE)
    cut = next((end for end in range(len(key) - 1, SHORTEST_SECRET - 1, -1) if text.endswith(key[:end])), 0)
    return text[: len(text) - cut] + REDACTED if cut else text


def _escapes(character: str) -> str:
    """A pattern for a character of a key, as JSON or a URL may write it."""
    plain = re.escape(character)
    return plain if _PLAIN.fullmatch(character) else rf"(?:\\?{plain}|\\u{ord(character):04x}|%{ord(character):02x})"
