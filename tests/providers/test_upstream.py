"""Calls over a real client to a real peer, in a dialect as small as can be."""

import asyncio
import gzip
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety, Violation
from headrace_server.domain.events import Delta, TextDelta
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.ports import Call, Upstream
from headrace_server.domain.provider import Dialect as DialectName
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.providers import faults
from headrace_server.providers.dialect import HttpFailure, HttpRequest, LimitHeader
from headrace_server.providers.faults import ErrorBody, Rule
from headrace_server.providers.http import TransportKind, make_transport
from headrace_server.providers.upstream import HttpCall, HttpUpstream

StartPeer = Callable[..., Awaitable[Any]]

NOW = 1_767_225_600_000
KEY = "canary-7f3a9d"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TinyDecoder:
    """Events are {"text": …}, {"error": …} or [DONE]; a whole answer is {"texts": […]} or a list of events."""

    def __init__(self) -> None:
        self.answer = Answer()

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        if data == b"[DONE]":
            self.answer.finish_reason = FinishReason.STOP
            return ()
        try:
            value = json.loads(data)
        except ValueError:
            raise faults.malformed("not JSON", data) from None
        if "error" in value:
            raise ProviderFault(faults.classify(RULES, HttpFailure(200, {}, data), ErrorBody(message=value["error"])))
        if "crash" in value:
            raise KeyError(KEY)
        if "what" in value:
            self.answer.unknown_events += 1
        if not value.get("text"):
            return ()
        delta = TextDelta(value["text"])
        self.answer.add(delta)
        return (delta,)

    def whole(self, body: bytes) -> Sequence[Delta]:
        try:
            value = json.loads(body)
        except ValueError:
            raise faults.malformed("not JSON", body) from None
        if not value:
            raise faults.empty()
        if "error" in value:
            return self.event("", body)
        deltas = [TextDelta(event["text"]) for event in value] if isinstance(value, list) else [TextDelta(text) for text in value["texts"]]
        for delta in deltas:
            self.answer.add(delta)
        self.answer.finish_reason = FinishReason.STOP
        return deltas

    def finish(self) -> None:
        if self.answer.finish_reason is None:
            raise faults.truncated()


RULES = (
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, status=(401,)),
    Rule(ErrorCode.SERVER_ERROR, "OVERLOADED", retryable=True, status=(200, 529), words="overloaded"),
)


class Tiny:
    default_api_url = ""
    limit_headers = (LimitHeader("x-left", LimitType.REQUESTS_PER_MINUTE),)

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        return (Violation(field="top_k", description="is not known"),) if request.top_k else ()

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        headers = {"x-api-key": key, "content-type": "application/json"}
        return HttpRequest(provider.api_url + "/go", headers, json.dumps({"model": model, "stream": stream}).encode())

    def decoder(self, provider: Provider) -> TinyDecoder:
        return TinyDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        try:
            value = json.loads(failure.body)
        except ValueError:
            value = None
        body = ErrorBody(message=value["error"]) if isinstance(value, dict) and "error" in value else ErrorBody()
        return faults.classify(RULES, failure, body)


def request(*, stream: bool = True, **more: Any) -> GenerateRequest:
    message = ChatMessage(role=MessageRole.USER, content=(TextPart(text="hi"),))
    return GenerateRequest(request_id="01890a5d-ac96-774b-bcce-b302099a8057", stream=stream, messages=(message,), **more)


def provider(url: str, key: str = KEY) -> Provider:
    return Provider(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        provider="tiny",
        dialect=DialectName.OPENAI,
        api_url=url,
        default_model="tiny-1",
        api_key=SecretStr(key),
        created_at=0,
        updated_at=0,
    )


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"text": text}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
MOST_PIECES = 200


class CountedUnknowns:
    """What no dialect understands, as it was told."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, int]] = []
        self.events: list[tuple[str, int]] = []

    def unknown_error(self, provider: Provider, http_status: int) -> None:
        self.errors.append((provider.provider, http_status))

    def unknown_events(self, provider: Provider, count: int) -> None:
        self.events.append((provider.provider, count))


@pytest.fixture
def unknowns() -> CountedUnknowns:
    return CountedUnknowns()


@pytest.fixture(params=["httptools", pytest.param("aiohttp", marks=pytest.mark.slow), pytest.param("httpx", marks=pytest.mark.slow)])
async def upstream(request: pytest.FixtureRequest, trust: ssl.SSLContext, unknowns: "CountedUnknowns") -> AsyncIterator[HttpUpstream]:
    kind: TransportKind = request.param
    async with make_transport(kind, verify=trust) as client:
        yield HttpUpstream(
            client, lambda _: Tiny(), lambda: NOW, max_response=10_000, max_event=1_000, max_pieces=MOST_PIECES, unknowns=unknowns
        )


async def call(upstream: HttpUpstream, url: str, *, stream: bool = True, key: str = KEY, connect_timeout: float = 2) -> HttpCall:
    return await upstream.call(
        request(stream=stream), provider(url, key), "tiny-2", traceparent=TRACEPARENT, connect_timeout=connect_timeout
    )


async def read_all(call: Call) -> tuple[list[list[str]], Fault | None]:
    """What each read gave, and the fault that ended them."""
    reads: list[list[str]] = []
    try:
        while (deltas := await call.read()) is not None:
            reads.append([delta.text for delta in deltas if isinstance(delta, TextDelta)])
    except ProviderFault as fault:
        return reads, fault.fault
    finally:
        await call.close()
    return reads, None


def texts(reads: list[list[str]]) -> list[str]:
    return [text for read in reads for text in read]


async def refused(upstream: HttpUpstream, url: str, **how: Any) -> Fault:
    with pytest.raises(ProviderFault) as caught:
        await call(upstream, url, **how)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert KEY not in str(cause) + repr(cause)
        cause = cause.__cause__ or cause.__context__
    return caught.value.fault


def test_port_is_implemented_when_types_are_checked() -> None:
    upstream: type[Upstream] = HttpUpstream
    made: type[Call] = HttpCall
    assert (upstream, made) == (HttpUpstream, HttpCall)


def test_violations_are_the_dialects_when_it_checks(upstream: HttpUpstream) -> None:
    assert upstream.check(request(), provider("http://x")) == ()
    assert [v.field for v in upstream.check(request(top_k=3), provider("http://x"))] == ["top_k"]


# ---------------------------------------------------------------- answers


async def test_stream_is_read_piece_by_piece_when_it_comes_so(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(
        lambda exchange: exchange.chunks(event("a"), b": ping\n\n", event("b") + event("c"), DONE, extra="request-id: req_9\r\n")
    )
    made = await call(upstream, server.url)
    assert (made.sent, made.whole) == (True, False)
    reads, fault = await read_all(made)
    assert fault is None
    assert texts(reads) == ["a", "b", "c"]
    assert [] in reads
    assert made.answer.finish_reason is FinishReason.STOP
    assert made.answer.provider_request_id == "req_9"
    sent = server.exchanges[0]
    assert sent.head.startswith(b"POST /go ")
    assert json.loads(sent.body) == {"model": "tiny-2", "stream": True}
    assert sent.headers["traceparent"] == TRACEPARENT
    assert sent.headers["x-api-key"] == KEY


async def test_stream_reads_the_same_when_every_byte_comes_alone(upstream: HttpUpstream, peer: StartPeer) -> None:
    body = "\ufeff".encode() + event("ü💧") + b'data:{"text":\r\ndata: "b"}\r\n\r\n' + b"data: [DONE]"
    server = await peer(lambda exchange: exchange.chunks(*[body[i : i + 1] for i in range(len(body))]))
    reads, fault = await read_all(await call(upstream, server.url))
    assert (texts(reads), fault) == (["ü💧", "b"], None)


async def test_whole_answer_comes_as_one_list_when_it_was_asked_for(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(b" ", b'{"texts": ["a",', b' "b"]}'))
    made = await call(upstream, server.url, stream=False)
    reads, fault = await read_all(made)
    assert ([read for read in reads if read], fault, made.whole) == ([["a", "b"]], None, True)
    assert json.loads(server.exchanges[0].body)["stream"] is False


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "application/octet-stream"])
@pytest.mark.parametrize("body", [b'{"texts": ["a", "b"]}', b'\n[{"text": "a"},\n{"text": "b"}]'])
async def test_whole_answer_is_understood_when_a_stream_was_asked_for(
    upstream: HttpUpstream, peer: StartPeer, content_type: str, body: bytes
) -> None:
    server = await peer(lambda exchange: exchange.answer(body, content_type=content_type))
    made = await call(upstream, server.url)
    reads, fault = await read_all(made)
    assert (texts(reads), fault, made.whole) == (["a", "b"], None, True)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_stream_is_understood_when_a_whole_answer_was_asked_for(upstream: HttpUpstream, peer: StartPeer, content_type: str) -> None:
    server = await peer(lambda exchange: exchange.answer(b": hello\n\n" + event("a") + DONE, content_type=content_type))
    made = await call(upstream, server.url, stream=False)
    reads, fault = await read_all(made)
    assert (texts(reads), fault, made.whole) == (["a"], None, False)


async def test_connection_serves_the_next_call_when_an_answer_is_complete(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(event("a"), DONE))
    for _ in range(3):
        assert (await read_all(await call(upstream, server.url)))[1] is None
    assert server.connections == 1


# ---------------------------------------------------------------- answers that fail


async def test_deltas_before_an_error_come_first_when_both_are_at_hand(upstream: HttpUpstream, peer: StartPeer) -> None:
    body = event("a") + event("b") + b'data: {"error": "Overloaded"}\n\n' + event("c") + DONE
    server = await peer(lambda exchange: exchange.answer(body, extra="x-request-id: req_1\r\n"))
    made = await call(upstream, server.url)
    reads, fault = await read_all(made)
    assert reads == [["a", "b"]]
    assert fault is not None
    assert (fault.code, fault.subreason, fault.http_status, fault.provider_request_id) == (
        ErrorCode.SERVER_ERROR,
        "OVERLOADED",
        200,
        "req_1",
    )
    assert [part.text for part in made.answer.content() if isinstance(part, TextPart)] == ["ab"]


async def test_fault_stays_when_read_is_asked_again(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b"data: nonsense\n\n" + DONE))
    made = await call(upstream, server.url)
    for _ in range(2):
        with pytest.raises(ProviderFault) as caught:
            await made.read()
        assert caught.value.fault.subreason == "MALFORMED_EVENT"
    await made.close()


@pytest.mark.parametrize("cut", ["close", "chunked", "length", "reset", "within"])
async def test_answer_is_truncated_when_it_ends_early(upstream: HttpUpstream, peer: StartPeer, cut: str) -> None:
    async def handler(exchange: Any) -> None:
        if cut in ("chunked", "reset"):
            await exchange.chunks(event("a"), end=False)
        else:
            length = b"content-length: 500\r\n" if cut == "length" else b""
            partial = event("b")[:-6] if cut == "within" else b""
            await exchange.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + event("a") + partial)
        exchange.reset() if cut == "reset" else exchange.writer.close()

    server = await peer(handler)
    reads, fault = await read_all(await call(upstream, server.url))
    assert texts(reads) == ["a"]
    assert fault is not None
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.NETWORK_ERROR, "STREAM_TRUNCATED", True)
    assert fault.replay_safety is ReplaySafety.UNCERTAIN


@pytest.mark.parametrize(
    ("body", "subreason"),
    [
        (b"", "STREAM_TRUNCATED"),
        (b"{}", "EMPTY"),
        (b"<html>", "MALFORMED_EVENT"),
        (b"null", "EMPTY"),
        (b"[]", "EMPTY"),
        (b'{"a', "MALFORMED_EVENT"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_empty_success_is_a_fault_when_the_body_says_nothing(
    upstream: HttpUpstream, peer: StartPeer, body: bytes, subreason: str, stream: bool
) -> None:
    server = await peer(lambda exchange: exchange.answer(body, content_type="application/json"))
    reads, fault = await read_all(await call(upstream, server.url, stream=stream))
    assert texts(reads) == []
    assert fault is not None
    assert (fault.subreason, fault.retryable) == (subreason, True)


async def test_error_with_status_200_is_classified_when_it_is_the_whole_body(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b'{"error": "overloaded"}'))
    _, fault = await read_all(await call(upstream, server.url))
    assert fault is not None
    assert fault.subreason == "OVERLOADED"


async def test_call_fails_without_the_cause_text_when_a_decoder_crashes(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(event("a") + b'data: {"crash": 1}\n\n'))
    reads, fault = await read_all(await call(upstream, server.url))
    assert texts(reads) == ["a"]
    assert fault is not None
    assert fault.subreason == "MALFORMED_EVENT"
    assert KEY not in repr(fault)


async def test_key_is_nowhere_when_an_event_repeats_it(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b'data: {"error": "bad key %s, overloaded"}\n\n' % KEY.encode()))
    _, fault = await read_all(await call(upstream, server.url))
    assert fault is not None
    assert "bad key [redacted]" in fault.message
    assert KEY not in repr(fault)


async def test_event_above_the_cap_fails_when_it_is_never_ended(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(event("a"), b"data: " + b"x" * 2_000))
    reads, fault = await read_all(await call(upstream, server.url))
    assert texts(reads) == ["a"]
    assert fault is not None
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, "EVENT_TOO_LARGE")


async def test_answer_fails_when_it_is_in_too_many_pieces(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(*[event("a") * 20] * 20))
    made = await call(upstream, server.url)
    reads, fault = await read_all(made)
    assert fault is not None
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, "EVENT_TOO_LARGE", True)
    assert str(MOST_PIECES) in fault.message
    assert len(texts(reads)) <= MOST_PIECES


async def test_whole_answer_fails_when_it_is_in_too_many_pieces(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(json.dumps({"texts": ["a"] * (MOST_PIECES + 1)}).encode()))
    reads, fault = await read_all(await call(upstream, server.url, stream=False))
    assert texts(reads) == []
    assert fault is not None
    assert fault.subreason == "EVENT_TOO_LARGE"


@pytest.mark.parametrize("piece", [event("x" * 500), b'["' + b"x" * 500, b" " * 500])
async def test_answer_above_the_cap_fails_when_it_goes_on_and_on(upstream: HttpUpstream, peer: StartPeer, piece: bytes) -> None:
    server = await peer(lambda exchange: exchange.chunks(*[piece] * 30))
    _, fault = await read_all(await call(upstream, server.url))
    assert fault is not None
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, "EVENT_TOO_LARGE")


async def test_answer_is_refused_when_it_is_compressed(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(gzip.compress(event("a") + DONE), extra="content-encoding: gzip\r\n"))
    fault = await refused(upstream, server.url)
    assert (fault.code, fault.retryable) == (ErrorCode.SERVER_ERROR, True)


# ---------------------------------------------------------------- what the headers say, and what nobody understands


@pytest.mark.parametrize("status", ["200 OK", "429 Too Many", "500 Oops"])
async def test_what_is_left_of_a_limit_is_told_by_good_answers_and_by_bad_ones(
    upstream: HttpUpstream, peer: StartPeer, status: str
) -> None:
    server = await peer(lambda exchange: exchange.answer(event("a") + DONE, status=status, extra="X-Left: 5\r\n"))
    if status == "200 OK":
        made = await call(upstream, server.url)
        assert (await read_all(made))[1] is None
        left = made.left
    else:
        left = (await refused(upstream, server.url)).left
    assert left == {LimitType.REQUESTS_PER_MINUTE: 5}


async def test_nothing_is_told_of_limits_when_no_header_does(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(event("a") + DONE, extra="x-left: many\r\n"))
    made = await call(upstream, server.url)
    await read_all(made)
    assert made.left == {}


async def test_unknown_events_are_counted_once_when_the_call_is_over(
    upstream: HttpUpstream, peer: StartPeer, unknowns: CountedUnknowns
) -> None:
    server = await peer(lambda exchange: exchange.chunks(*[b'data: {"what": 1}\n\n'] * 3, event("a"), DONE))
    made = await call(upstream, server.url)
    assert (await read_all(made))[1] is None
    await made.close()
    assert (unknowns.events, unknowns.errors) == ([("tiny", 3)], [])


async def test_unknown_events_are_counted_when_the_call_is_left(upstream: HttpUpstream, peer: StartPeer, unknowns: CountedUnknowns) -> None:
    server = await peer(lambda exchange: exchange.chunks(b'data: {"what": 1}\n\n', end=False))
    made = await call(upstream, server.url)
    assert await made.read() == []
    await made.close()
    assert unknowns.events == [("tiny", 1)]


async def test_an_error_that_is_in_no_table_is_counted_whether_it_is_the_answer_or_inside_it(
    upstream: HttpUpstream, peer: StartPeer, unknowns: CountedUnknowns
) -> None:
    server = await peer(lambda exchange: exchange.answer(b'{"error": "brand new"}', status="418 Teapot"))
    assert (await refused(upstream, server.url)).code is ErrorCode.UNKNOWN_ERROR
    server = await peer(lambda exchange: exchange.answer(event("a") + b'data: {"error": "brand new"}\n\n'))
    assert (await read_all(await call(upstream, server.url)))[1] is not None
    assert unknowns.errors == [("tiny", 418), ("tiny", 200)]


async def test_an_error_of_the_table_is_not_counted(upstream: HttpUpstream, peer: StartPeer, unknowns: CountedUnknowns) -> None:
    server = await peer(lambda exchange: exchange.answer(b'{"error": "slow down"}', status="429 Too Many"))
    await refused(upstream, server.url)
    assert unknowns.errors == []


# ---------------------------------------------------------------- error statuses


async def test_status_is_classified_when_it_is_not_200(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b'{"error": "slow down"}', status="429 Too Many", extra="retry-after: 2\r\n"))
    fault = await refused(upstream, server.url)
    assert (fault.code, fault.http_status, fault.retry_after) == (ErrorCode.RATE_LIMIT_EXCEEDED, 429, 2_000)
    assert (fault.message, fault.provider_text) == ("slow down", '{"error": "slow down"}')
    assert fault.replay_safety is ReplaySafety.UNCERTAIN


async def test_retry_date_is_measured_from_the_clock_when_a_header_names_one(upstream: HttpUpstream, peer: StartPeer) -> None:
    extra = "retry-after: Thu, 01 Jan 2026 00:00:07 GMT\r\n"
    server = await peer(lambda exchange: exchange.answer(b"{}", status="429 Too Many", extra=extra))
    assert (await refused(upstream, server.url)).retry_after == 7_000


async def test_key_is_nowhere_when_an_error_repeats_it(upstream: HttpUpstream, peer: StartPeer) -> None:
    padding = "x" * (faults.MAX_MESSAGE - 8)
    server = await peer(lambda exchange: exchange.answer(json.dumps({"error": padding + KEY}).encode(), status="401 Unauthorized"))
    fault = await refused(upstream, server.url)
    assert fault.code is ErrorCode.AUTHENTICATION_ERROR
    assert KEY[:6] not in repr(fault)


@pytest.mark.parametrize("key", ["canary/7f3a+9d==", "canary-7f3a9d"])
@pytest.mark.parametrize(
    "escaped",
    [
        lambda key: key,
        lambda key: key.replace("/", r"\/"),
        lambda key: key.replace("+", r"\u002b").replace("=", r"\u003D"),
        lambda key: key.replace("/", "%2F").replace("+", "%2b").replace("=", "%3d"),
    ],
    ids=["plain", "slashes", "unicode", "url"],
)
async def test_key_is_nowhere_when_an_error_repeats_it_escaped(
    upstream: HttpUpstream, peer: StartPeer, key: str, escaped: Callable[[str], str]
) -> None:
    body = f'{{"error": "no such key: {escaped(key)}"}}'
    server = await peer(lambda exchange: exchange.answer(body.encode(), status="401 Unauthorized"))
    fault = await refused(upstream, server.url, key=key)
    assert fault.code is ErrorCode.AUTHENTICATION_ERROR
    assert "canary" not in repr(fault)


async def test_key_is_nowhere_when_a_long_event_repeats_it_where_it_is_cut(upstream: HttpUpstream, peer: StartPeer) -> None:
    for start in (faults.MAX_MESSAGE - len("overloaded: ") - 8, 500):
        padding = "x" * start
        body = event("a") + b"data: " + json.dumps({"error": f"overloaded: {padding}{KEY}"}).encode() + b"\n\n"
        server = await peer(lambda exchange, body=body: exchange.answer(body))
        client = HttpUpstream(upstream._transport, lambda _: Tiny(), lambda: NOW)
        _, fault = await read_all(await call(client, server.url))
        assert fault is not None
        assert fault.subreason == "OVERLOADED"
        assert KEY[:6] not in repr(fault)


async def test_status_decides_when_the_body_of_an_error_is_cut(upstream: HttpUpstream, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(b'HTTP/1.1 429 Too Many\r\ncontent-length: 900\r\n\r\n{"error": ')
        exchange.writer.close()

    server = await peer(handler)
    assert (await refused(upstream, server.url)).code is ErrorCode.RATE_LIMIT_EXCEEDED


async def test_status_decides_when_the_body_of_an_error_never_ends(
    upstream: HttpUpstream, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.providers.upstream.ERROR_BODY_SECONDS", 0.1)

    async def handler(exchange: Any) -> None:
        await exchange.send(b"HTTP/1.1 429 Too Many\r\ncontent-length: 900\r\n\r\n")
        assert await exchange.gone()

    server = await peer(handler)
    assert (await refused(upstream, server.url)).code is ErrorCode.RATE_LIMIT_EXCEEDED


async def test_body_of_an_error_is_read_in_part_when_it_is_huge(
    upstream: HttpUpstream, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.providers.upstream.MAX_ERROR_BODY", 100)

    async def handler(exchange: Any) -> None:
        await exchange.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        while not exchange.writer.is_closing():
            await exchange.send(b"x" * 10_000)

    server = await peer(handler)
    fault = await refused(upstream, server.url)
    assert (fault.subreason, fault.provider_text) == ("NON_JSON", "x" * 100)


async def test_redirect_is_blocked_when_it_points_elsewhere(upstream: HttpUpstream, peer: StartPeer) -> None:
    target = await peer(lambda exchange: exchange.answer(DONE))
    server = await peer(lambda exchange: exchange.answer(b"", status="307 Temporary", extra=f"location: {target.url}\r\n"))
    fault = await refused(upstream, server.url)
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, "REDIRECT_BLOCKED", False)
    assert target.connections == 0


async def test_headers_are_refused_when_they_are_too_large(upstream: HttpUpstream, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(DONE, extra=f"x-large: {'w' * 200_000}\r\n"))
    fault = await refused(upstream, server.url)
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, "EVENT_TOO_LARGE")


# ---------------------------------------------------------------- no answer


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no-such-host.invalid"])
async def test_nothing_was_sent_when_no_connection_is_made(upstream: HttpUpstream, url: str) -> None:
    fault = await refused(upstream, url.format(port=free_port()), connect_timeout=10)
    assert (fault.code, fault.retryable, fault.fallback) == (ErrorCode.NETWORK_ERROR, True, True)
    assert fault.replay_safety is ReplaySafety.NOT_SENT


async def test_nothing_was_sent_when_connecting_takes_too_long(upstream: HttpUpstream) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fault = await refused(upstream, f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.1)
    assert (fault.code, fault.retryable, fault.replay_safety) == (ErrorCode.NETWORK_ERROR, True, ReplaySafety.NOT_SENT)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:99999"])
async def test_address_is_refused_when_it_cannot_be_used(upstream: HttpUpstream, url: str) -> None:
    fault = await refused(upstream, url)
    assert (fault.code, fault.retryable, fault.replay_safety) == (ErrorCode.NETWORK_ERROR, False, ReplaySafety.NOT_SENT)


@pytest.mark.parametrize("key", [KEY + "\r\nx-evil: 1", KEY + "\n", KEY + "ä", KEY + "\0"])
async def test_key_is_refused_without_its_text_when_a_header_cannot_hold_it(upstream: HttpUpstream, peer: StartPeer, key: str) -> None:
    server = await peer(lambda exchange: exchange.answer(DONE))
    fault = await refused(upstream, server.url, key=key)
    assert (fault.code, fault.subreason) == (ErrorCode.AUTHENTICATION_ERROR, "BAD_CREDENTIAL_FORMAT")
    assert (fault.retryable, fault.fallback, fault.replay_safety) == (False, True, ReplaySafety.NOT_SENT)
    assert server.connections == 0


@pytest.mark.parametrize("how", ["close", "reset", "garbage"])
async def test_outcome_is_uncertain_when_the_connection_breaks_before_an_answer(upstream: HttpUpstream, peer: StartPeer, how: str) -> None:
    async def handler(exchange: Any) -> None:
        if how == "garbage":
            await exchange.send(b"220 smtp.example.org ESMTP\r\n\r\n")
        exchange.reset() if how == "reset" else exchange.writer.close()

    server = await peer(handler)
    fault = await refused(upstream, server.url)
    assert (fault.code, fault.retryable, fault.replay_safety) == (ErrorCode.NETWORK_ERROR, True, ReplaySafety.UNCERTAIN)


# ---------------------------------------------------------------- leaving


async def test_peer_sees_the_end_at_once_when_a_call_is_closed(upstream: HttpUpstream, peer: StartPeer) -> None:
    gone: asyncio.Queue[float] = asyncio.Queue()

    async def handler(exchange: Any) -> None:
        await exchange.chunks(event("a"), end=False)
        await exchange.gone()
        gone.put_nowait(time.monotonic())

    server = await peer(handler)
    made = await call(upstream, server.url)
    assert await made.read() == [TextDelta("a")]
    closed = time.monotonic()
    await made.close()
    assert await asyncio.wait_for(gone.get(), 1) - closed < 0.1
    await made.close()


async def test_peer_sees_the_end_at_once_when_a_read_is_cancelled(upstream: HttpUpstream, peer: StartPeer) -> None:
    gone: asyncio.Queue[float] = asyncio.Queue()

    async def handler(exchange: Any) -> None:
        await exchange.chunks(event("a"), end=False)
        await exchange.gone()
        gone.put_nowait(time.monotonic())

    server = await peer(handler)
    made = await call(upstream, server.url)
    assert await made.read() == [TextDelta("a")]
    reading = asyncio.create_task(made.read())
    await asyncio.sleep(0.02)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    closed = time.monotonic()
    await made.close()
    assert await asyncio.wait_for(gone.get(), 1) - closed < 0.1


async def test_peer_sees_the_end_at_once_when_waiting_for_headers_is_cancelled(upstream: HttpUpstream, peer: StartPeer) -> None:
    gone: asyncio.Queue[float] = asyncio.Queue()

    async def handler(exchange: Any) -> None:
        await exchange.gone()
        gone.put_nowait(time.monotonic())

    server = await peer(handler)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await call(upstream, server.url)
    assert await asyncio.wait_for(gone.get(), 1) - begun < 0.3
