"""The contract of both transports, on real sockets."""

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace_server.providers.http import TransportKind, make_transport, post
from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.transport import BEGINS, HeadersTooLarge, Transport, causes

StartPeer = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["httptools", pytest.param("aiohttp", marks=pytest.mark.slow), pytest.param("httpx", marks=pytest.mark.slow)])
async def transport(request: pytest.FixtureRequest, trust: ssl.SSLContext) -> AsyncIterator[Transport]:
    kind: TransportKind = request.param
    async with make_transport(kind, verify=trust) as made:
        yield made


async def send(transport: Transport, url: str, connect: float = 2, **headers: str) -> httpx.Response:
    return await transport.handle_async_request(post(url, headers, b'{"stream":true}', connect_timeout=connect))


async def read(response: httpx.Response) -> list[bytes]:
    """What each read gave, with the error that ended them passed on."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        return [piece async for piece in response.stream]
    finally:
        await response.aclose()


async def read_until_error(response: httpx.Response) -> tuple[bytes, Exception]:
    got = b""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    with pytest.raises(httpx.TransportError) as caught:
        async for piece in response.stream:
            got += piece
    await response.aclose()
    return got, caught.value


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# ---------------------------------------------------------------- what is sent


async def test_request_goes_out_as_it_was_built_when_sent(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok"))
    await read(
        await send(transport, server.url + "/v1/models/a%2Fb:go?alt=sse", **{"x-api-key": "secret", "content-type": "application/json"})
    )
    exchange = server.exchanges[0]
    assert exchange.head.startswith(b"POST /v1/models/a%2Fb:go?alt=sse HTTP/1.1")
    assert exchange.body == b'{"stream":true}'
    assert exchange.headers["x-api-key"] == "secret"
    assert exchange.headers["accept-encoding"] == "identity"
    assert exchange.headers["user-agent"] == "headrace"
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.headers["host"] == server.url.removeprefix("http://")


async def test_cookies_are_not_sent_back_when_a_provider_sets_them(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok", extra="set-cookie: __cf_bm=1; path=/\r\n"))
    for _ in range(2):
        await read(await send(transport, server.url))
    assert "cookie" not in server.exchanges[1].headers


async def test_environment_is_ignored_when_it_names_a_proxy(transport: Transport, peer: StartPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = await peer(lambda exchange: exchange.answer(b"ok"))
    assert await read(await send(transport, server.url)) == [b"ok"]


@pytest.mark.parametrize("key", ["sk-SECRET\r\nx-evil: 1", "sk-SECRET\n", "sk-SECRET\0"])
async def test_key_is_refused_without_its_text_when_it_cannot_stand_in_a_header(transport: Transport, peer: StartPeer, key: str) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok"))
    with pytest.raises(httpx.LocalProtocolError) as caught:
        await send(transport, server.url, **{"x-api-key": key})
    assert all("SECRET" not in repr(cause) + str(cause) for cause in causes(caught.value))
    assert server.exchanges == []


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize("kind", ["httptools", "aiohttp"])
async def test_all_at_hand_comes_with_one_read_when_several_pieces_have_arrived(
    peer: StartPeer, trust: ssl.SSLContext, kind: TransportKind
) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.chunks(*[b"data: %d\n\n" % i for i in range(10)])

    server = await peer(handler)
    async with make_transport(kind, verify=trust) as transport:
        response = await send(transport, server.url)
        await asyncio.sleep(0.2)
        pieces = await read(response)
    assert b"".join(pieces) == b"".join(b"data: %d\n\n" % i for i in range(10))
    assert len(pieces) == 1


async def test_bytes_come_unchanged_when_they_are_split_anywhere(transport: Transport, peer: StartPeer) -> None:
    body = "data: Grüße 💧\r\n\r\n".encode()
    server = await peer(lambda exchange: exchange.chunks(*[body[i : i + 1] for i in range(len(body))]))
    assert b"".join(await read(await send(transport, server.url))) == body


async def test_body_is_whole_when_the_peer_ends_it_by_closing(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n", b"data: 2\n\n")
        exchange.writer.close()

    server = await peer(handler)
    assert b"".join(await read(await send(transport, server.url))) == b"data: 1\n\ndata: 2\n\n"


async def test_redirect_is_not_followed_when_it_points_elsewhere(transport: Transport, peer: StartPeer) -> None:
    target = await peer(lambda exchange: exchange.answer(b"stolen"))
    server = await peer(lambda exchange: exchange.answer(b"", status="307 Temporary Redirect", extra=f"location: {target.url}/\r\n"))
    response = await send(transport, server.url)
    await read(response)
    assert response.status_code == 307
    assert target.connections == 0


async def test_body_is_not_inflated_when_a_provider_compresses_it(transport: Transport, peer: StartPeer) -> None:
    bomb = gzip.compress(b"\0" * 1_000_000)
    server = await peer(lambda exchange: exchange.answer(bomb, extra="content-encoding: gzip\r\n"))
    response = await send(transport, server.url)
    assert response.headers["content-encoding"] == "gzip"
    assert b"".join(await read(response)) == bomb


async def test_headers_come_through_when_they_are_many_and_large(transport: Transport, peer: StartPeer) -> None:
    extra = "".join(f"x-ratelimit-{i}: {'v' * 500}\r\n" for i in range(20)) + f"x-large: {'w' * 20_000}\r\n"
    server = await peer(lambda exchange: exchange.answer(b"ok", extra=extra))
    response = await send(transport, server.url)
    await read(response)
    assert response.headers["x-large"] == "w" * 20_000
    assert response.headers["x-ratelimit-19"] == "v" * 500


async def test_answer_is_refused_when_its_headers_exceed_the_cap(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok", extra=f"x-large: {'w' * 200_000}\r\n"))
    with pytest.raises(HeadersTooLarge):
        await send(transport, server.url)
    assert len(server.exchanges) == 1


# ---------------------------------------------------------------- connecting


async def test_refused_connection_is_a_connect_error_when_nobody_listens(transport: Transport) -> None:
    with pytest.raises(httpx.ConnectError):
        await send(transport, f"http://127.0.0.1:{free_port()}/")


async def test_unknown_host_is_a_connect_error_when_it_does_not_resolve(transport: Transport) -> None:
    with pytest.raises(httpx.ConnectError):
        await send(transport, "http://no-such-host.invalid/", connect=10)


async def test_connecting_ends_in_time_when_the_peer_never_answers_the_handshake(transport: Transport) -> None:
    with socket.socket() as silent:  # TLS makes the connection wait for bytes that never come
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises(httpx.ConnectTimeout):
            await send(transport, f"https://127.0.0.1:{silent.getsockname()[1]}/", connect=0.2)
        assert time.monotonic() - begun < 2


async def test_headers_are_waited_for_when_only_connecting_has_a_limit(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        await asyncio.sleep(0.4)
        await exchange.answer(b"late")

    server = await peer(handler)
    assert await read(await send(transport, server.url, connect=0.1)) == [b"late"]


async def test_plain_server_is_a_connect_error_when_tls_is_spoken_to_it(transport: Transport) -> None:
    async def say_no(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is not TLS\r\n")
        writer.close()

    server = await asyncio.start_server(say_no, "127.0.0.1", 0)
    async with server:
        with pytest.raises(httpx.ConnectError):
            await send(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and the certificate that a transport has to trust for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context, tmp_path / "cert.pem"


async def test_certificate_is_named_as_the_cause_when_it_is_not_trusted(
    transport: Transport, peer: StartPeer, self_signed: tuple[ssl.SSLContext, Path]
) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok"), tls=self_signed[0])
    with pytest.raises(httpx.ConnectError) as caught:
        await send(transport, server.url)
    assert any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(caught.value))
    assert server.exchanges == []


@pytest.mark.parametrize("kind", ["httptools", "aiohttp", "httpx"])
async def test_tls_connection_is_used_again_when_its_certificate_is_trusted(
    kind: TransportKind, peer: StartPeer, self_signed: tuple[ssl.SSLContext, Path]
) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok"), tls=self_signed[0])
    async with make_transport(kind, verify=ssl.create_default_context(cafile=str(self_signed[1]))) as transport:
        for _ in range(3):
            assert await read(await send(transport, server.url)) == [b"ok"]
    assert server.connections == 1


# ---------------------------------------------------------------- breaking off


async def test_answer_is_a_protocol_error_when_the_peer_closes_without_one(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        exchange.writer.close()

    server = await peer(handler)
    with pytest.raises(httpx.RemoteProtocolError):
        await send(transport, server.url)
    assert len(server.exchanges) == 1


async def test_reset_is_a_read_error_when_it_comes_before_the_headers(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        exchange.reset()

    server = await peer(handler)
    with pytest.raises(httpx.ReadError):
        await send(transport, server.url)
    assert len(server.exchanges) == 1


async def test_answer_is_a_protocol_error_when_it_is_not_http(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))
    with pytest.raises(httpx.RemoteProtocolError):
        await send(transport, server.url)


HEADS = {
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\ndata: 1\n\n",
    "close": b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n",
}


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_cut_body_is_a_protocol_error_when_its_framing_tells(transport: Transport, peer: StartPeer, framing: str) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(HEADS[framing])
        exchange.writer.close()

    server = await peer(handler)
    got, error = await read_until_error(await send(transport, server.url))
    assert got == b"data: 1\n\n"
    assert isinstance(error, httpx.RemoteProtocolError)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_reset_is_a_read_error_when_it_comes_within_the_body(transport: Transport, peer: StartPeer, framing: str) -> None:
    read_first = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.send(HEADS[framing])
        await read_first.wait()
        exchange.reset()

    server = await peer(handler)
    response = await send(transport, server.url)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    pieces = aiter(response.stream)
    assert await anext(pieces) == b"data: 1\n\n"
    read_first.set()
    with pytest.raises(httpx.ReadError):
        await anext(pieces)
    await response.aclose()


@pytest.mark.parametrize("kind", ["httptools", "aiohttp"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_bytes_before_a_cut_are_not_lost_when_both_have_arrived(
    peer: StartPeer, trust: ssl.SSLContext, framing: str, kind: TransportKind
) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(HEADS[framing])
        exchange.writer.close()

    server = await peer(handler)
    async with make_transport(kind, verify=trust) as transport:
        response = await send(transport, server.url)
        await asyncio.sleep(0.1)
        got, error = await read_until_error(response)
    assert got == b"data: 1\n\n"
    assert isinstance(error, httpx.RemoteProtocolError)


async def test_broken_framing_is_a_protocol_error_when_a_chunk_has_no_size(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(HEADS["chunked"])
        await asyncio.sleep(0.05)
        await exchange.send(b"nonsense\r\n")

    server = await peer(handler)
    got, error = await read_until_error(await send(transport, server.url))
    assert got == b"data: 1\n\n"
    assert isinstance(error, httpx.RemoteProtocolError)


async def test_socket_is_closed_at_once_when_reading_is_cancelled(transport: Transport, peer: StartPeer) -> None:
    gone: asyncio.Queue[float] = asyncio.Queue()

    async def handler(exchange: Any) -> None:
        await exchange.send(HEADS["chunked"])
        await exchange.gone()
        gone.put_nowait(time.monotonic())

    server = await peer(handler)
    response = await send(transport, server.url)
    task = asyncio.create_task(read(response))
    await asyncio.sleep(0.05)
    cancelled = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(gone.get(), 1) - cancelled < 0.1


async def test_socket_is_closed_at_once_when_waiting_for_headers_is_cancelled(transport: Transport, peer: StartPeer) -> None:
    asked = asyncio.Event()
    gone: asyncio.Queue[float] = asyncio.Queue()

    async def handler(exchange: Any) -> None:
        asked.set()
        await exchange.gone()
        gone.put_nowait(time.monotonic())

    server = await peer(handler)
    task = asyncio.create_task(send(transport, server.url))
    await asked.wait()
    cancelled = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(gone.get(), 1) - cancelled < 0.1


# ---------------------------------------------------------------- the pool


async def test_streams_run_side_by_side_when_there_are_more_than_a_pool_usually_has(transport: Transport, peer: StartPeer) -> None:
    everybody, count = asyncio.Event(), 150

    async def handler(exchange: Any) -> None:
        if len(server.exchanges) == count:
            everybody.set()
        await everybody.wait()
        await exchange.answer(exchange.headers["x-number"].encode())

    server = await peer(handler)
    responses = await asyncio.gather(*(send(transport, server.url, **{"x-number": str(i)}) for i in range(count)))
    assert [await read(response) for response in responses] == [[str(i).encode()] for i in range(count)]


async def test_connection_is_used_again_when_an_answer_was_read_to_its_end(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(b"data: 1\n\n"))
    for _ in range(3):
        await read(await send(transport, server.url))
    assert server.connections == 1


async def test_what_follows_an_answer_unasked_is_no_part_of_it(peer: StartPeer, trust: ssl.SSLContext) -> None:
    async def handler(exchange: Any) -> None:
        whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        await exchange.send(whole + b"HTTP/1.1 500 No\r\nx-more: 1\r\ncontent-length: 4\r\n\r\nmore")

    server = await peer(handler)
    async with make_transport("httptools", verify=trust) as transport:
        for _ in range(2):
            response = await send(transport, server.url)
            assert (response.status_code, "x-more" in response.headers) == (200, False)
            assert b"".join(await read(response)) == b"ok"
    assert server.connections == 2


async def test_connection_is_not_used_again_when_an_answer_was_left_unread(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.chunks(b"data: 1\n\n", b"data: 2\n\n"))
    for _ in range(2):
        response = await send(transport, server.url)
        await response.aclose()
    assert server.connections == 2


async def test_request_begins_when_its_connection_stands_and_not_before(transport: Transport, peer: StartPeer) -> None:
    server = await peer(lambda exchange: exchange.answer(b"ok"))
    begun: list[str] = []

    async def ask(url: str, name: str) -> None:
        request = post(url, {}, b"{}", connect_timeout=2)
        request.extensions[BEGINS] = lambda: begun.append(name)
        assert await read(await transport.handle_async_request(request)) == [b"ok"]

    with pytest.raises(httpx.ConnectError):
        await ask(f"http://127.0.0.1:{free_port()}", "refused")
    assert begun == []
    await ask(server.url, "fresh")
    await ask(server.url, "kept")
    assert begun == ["fresh", "kept"]
    assert server.connections == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_request_is_sent_once_more_when_an_idle_connection_was_closed_by_the_peer(
    transport: Transport, peer: StartPeer, how: str
) -> None:
    async def handler(exchange: Any) -> None:
        if len(server.exchanges) == 2:
            exchange.reset() if how == "reset" else exchange.writer.close()
        else:
            await exchange.answer(b"ok")

    server = await peer(handler)
    for _ in range(2):
        assert await read(await send(transport, server.url)) == [b"ok"]
    assert [exchange.connection for exchange in server.exchanges] == [1, 1, 2]
    assert server.exchanges[2].body == b'{"stream":true}'


async def test_request_is_not_sent_a_third_time_when_the_fresh_connection_fails_too(transport: Transport, peer: StartPeer) -> None:
    async def handler(exchange: Any) -> None:
        if len(server.exchanges) > 1:
            exchange.writer.close()
        else:
            await exchange.answer(b"ok")

    server = await peer(handler)
    await read(await send(transport, server.url))
    with pytest.raises(httpx.RemoteProtocolError):
        await send(transport, server.url)
    assert len(server.exchanges) == 3


async def test_request_is_not_sent_again_when_the_peer_had_time_to_work_on_it(
    transport: Transport, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.providers.transport.RESEND_SECONDS", 0.05)

    async def handler(exchange: Any) -> None:
        if len(server.exchanges) == 2:
            await asyncio.sleep(0.1)
            exchange.writer.close()
        else:
            await exchange.answer(b"ok")

    server = await peer(handler)
    await read(await send(transport, server.url))
    with pytest.raises(httpx.RemoteProtocolError):
        await send(transport, server.url)
    assert len(server.exchanges) == 2
