import asyncio
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.fake_provider import Break, FakeProvider, Fate, Step, load_script
from headrace_server.fake_provider.script import Large, cut, pieces

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "two words"}]}),
    "responses": ("/v1/responses", {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "two words"}]}]}),
    "claude": ("/v1/messages", {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "two words"}]}),
    "gemini": ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "two words"}]}]}),
}
WHOLE_TEXT = "You said: two words This answer comes from the fake provider, one word at a time."


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


def streamed(dialect: str) -> tuple[str, dict[str, Any]]:
    path, body = CALLS[dialect]
    if dialect == "gemini":
        return path.replace("generateContent", "streamGenerateContent") + "?alt=sse", body
    return path, {**body, "stream": True}


def events_of(body: bytes) -> list[dict[str, Any]]:
    lines = (line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: {"))
    return [json.loads(line) for line in lines]


def text_of_events(dialect: str, events: list[dict[str, Any]]) -> str:
    match dialect:
        case "chat":
            return "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
        case "responses":
            return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        case "claude":
            return "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
        case _:
            return "".join(e["candidates"][0]["content"]["parts"][0]["text"] for e in events)


def text_of_whole(dialect: str, answer: dict[str, Any]) -> str:
    match dialect:
        case "chat":
            return str(answer["choices"][0]["message"]["content"])
        case "responses":
            return str(answer["output"][0]["content"][0]["text"])
        case "claude":
            return str(answer["content"][0]["text"])
        case _:
            return str(answer["candidates"][0]["content"]["parts"][0]["text"])


@pytest.mark.parametrize("dialect", CALLS)
async def test_whole_answer_echoes_the_prompt_when_there_is_no_script(http: aiohttp.ClientSession, dialect: str) -> None:
    path, body = CALLS[dialect]
    async with FakeProvider() as provider, http.post(provider.url + path, json=body) as response:
        assert response.status == 200
        assert text_of_whole(dialect, await response.json()) == WHOLE_TEXT


@pytest.mark.parametrize("dialect", CALLS)
async def test_stream_echoes_the_prompt_when_there_is_no_script(http: aiohttp.ClientSession, dialect: str) -> None:
    path, body = streamed(dialect)
    async with FakeProvider() as provider, http.post(provider.url + path, json=body) as response:
        assert response.content_type == "text/event-stream"
        assert text_of_events(dialect, events_of(await response.read())) == WHOLE_TEXT


async def test_gemini_stream_is_a_json_array_when_sse_was_not_asked_for(http: aiohttp.ClientSession) -> None:
    path, body = streamed("gemini")
    async with FakeProvider() as provider, http.post(provider.url + path.partition("?")[0], json=body) as response:
        assert text_of_events("gemini", await response.json()) == WHOLE_TEXT


async def test_answer_ends_by_length_when_max_tokens_is_small(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    async with FakeProvider() as provider, http.post(provider.url + path, json={**body, "max_tokens": 2}) as response:
        answer = await response.json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_tokens_are_counted_and_paced_when_the_model_says_so(http: aiohttp.ClientSession) -> None:
    path, body = streamed("claude")
    started = time.monotonic()
    async with FakeProvider() as provider, http.post(provider.url + path, json={**body, "model": "fake-n5-d20"}) as response:
        events = events_of(await response.read())
    assert sum(e["type"] == "content_block_delta" for e in events) == 5
    assert time.monotonic() - started >= 0.08


async def test_steps_are_played_in_order_and_the_default_follows(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    script = [Step(status=429, headers={"Retry-After": "2"}, body={"error": {"message": "slow down"}}), Step(text="twice", times=2)]
    answers = []
    async with FakeProvider(script) as provider:
        for _ in range(4):
            async with http.post(provider.url + path, json=body) as response:
                answers.append((response.status, response.headers.get("retry-after"), await response.json()))
    assert answers[0] == (429, "2", {"error": {"message": "slow down"}})
    assert [text_of_whole("chat", answer) for _, _, answer in answers[1:]] == ["twice", "twice", WHOLE_TEXT]


async def test_step_is_played_for_ever_when_times_is_zero(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    async with FakeProvider([Step(status=500, times=0)]) as provider:
        for _ in range(3):
            async with http.post(provider.url + path, json=body) as response:
                assert response.status == 500


async def test_scripted_events_carry_names_where_the_dialect_has_them(http: aiohttp.ClientSession) -> None:
    step = Step(events=({"type": "ping"}, ": comment", {"type": "message_stop"}))
    path, body = streamed("claude")
    async with FakeProvider([step]) as provider, http.post(provider.url + path, json=body) as response:
        expected = b'event: ping\ndata: {"type": "ping"}\n\n: comment\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
        assert await response.read() == expected


async def test_raw_body_arrives_byte_for_byte_when_it_is_split(http: aiohttp.ClientSession) -> None:
    raw = "\ufeffdata: grüße\r\n\r\ndata: 水\r\r"
    step = Step(body=raw, headers={"content-type": "text/event-stream"}, split=1)
    path, body = streamed("chat")
    async with FakeProvider([step]) as provider, http.post(provider.url + path, json=body) as response:
        assert response.content_type == "text/event-stream"
        assert await response.read() == raw.encode()


async def test_body_of_bytes_is_sent_when_it_is_base64(http: aiohttp.ClientSession) -> None:
    step = Step(body_base64="H4sI", headers={"x-kind": "bytes"})
    path, body = CALLS["chat"]
    async with FakeProvider([step]) as provider, http.post(provider.url + path, json=body) as response:
        assert (await response.read(), response.headers["x-kind"]) == (b"\x1f\x8b\x08", "bytes")


@pytest.mark.parametrize(("framing", "error"), [("chunked", aiohttp.ClientPayloadError), ("content-length", aiohttp.ClientPayloadError)])
async def test_caller_sees_a_short_body_when_a_framed_answer_is_cut(http: aiohttp.ClientSession, framing: Any, error: Any) -> None:
    step = Step(text="one two three", framing=framing, fault=Break(kind="cut", after_events=3))
    path, body = streamed("chat")
    async with FakeProvider([step]) as provider:
        async with http.post(provider.url + path, json=body) as response:
            with pytest.raises(error):
                await response.read()
        assert provider.requests[0].fate is Fate.BROKEN_OFF


async def test_caller_sees_a_clean_end_when_a_close_delimited_answer_is_cut(http: aiohttp.ClientSession) -> None:
    step = Step(text="one two three", framing="close", fault=Break(kind="cut", after_bytes=100))
    path, body = streamed("chat")
    async with FakeProvider([step]) as provider, http.post(provider.url + path, json=body) as response:
        assert len(await response.read()) == 100


async def test_caller_reads_what_came_before_a_reset(http: aiohttp.ClientSession) -> None:
    step = Step(text="one two three", fault=Break(kind="reset", after_events=3))
    path, body = streamed("chat")
    got, ended = b"", None
    async with FakeProvider([step]) as provider, http.post(provider.url + path, json=body) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientError as error:
            ended = type(error)
    assert (ended, text_of_events("chat", events_of(got))) == (aiohttp.ClientPayloadError, "one two")


async def test_no_byte_comes_when_the_answer_is_reset_before_its_headers(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    async with FakeProvider([Step(fault=Break(kind="reset", before_headers=True))]) as provider:
        with pytest.raises(aiohttp.ClientOSError):
            await http.post(provider.url + path, json=body)
        assert provider.requests[0].sent == 0


async def test_stalled_call_ends_when_the_caller_leaves(http: aiohttp.ClientSession) -> None:
    path, body = streamed("claude")
    async with FakeProvider([Step(text="one two", fault=Break(kind="stall", after_events=4))]) as provider:
        response = await http.post(provider.url + path, json=body)
        await response.content.readany()
        call = provider.requests[0]
        assert call.fate is Fate.OPEN
        response.close()
        async with asyncio.timeout(1):
            await call.ended.wait()
        assert call.fate is Fate.CALLER_LEFT


async def test_delayed_call_ends_when_the_caller_leaves(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    async with FakeProvider([Step(delay_ms=60_000)]) as provider:
        with pytest.raises(TimeoutError):
            await http.post(provider.url + path, json=body, timeout=aiohttp.ClientTimeout(total=0.05))
        async with asyncio.timeout(1):
            await provider.requests[0].ended.wait()
        assert provider.requests[0].fate is Fate.CALLER_LEFT


async def test_comments_go_on_when_the_answer_drips(http: aiohttp.ClientSession) -> None:
    path, body = streamed("chat")
    fault = Break(kind="drip", after_events=1, every_ms=1)
    got = b""
    async with FakeProvider([Step(text="one", fault=fault)]) as provider:
        response = await http.post(provider.url + path, json=body)
        while got.count(b": still there\n\n") < 5:
            got += await response.content.readany()
        response.close()
    assert text_of_events("chat", events_of(got)) == ""


async def test_error_text_is_as_long_as_it_is_told_to_be(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]
    error = {"error": {"message": "", "type": "requests", "param": None}}
    async with FakeProvider([Step(status=429, body=error, large=Large(message=100_000))]) as provider:
        async with http.post(provider.url + path, json=body) as response:
            told = await response.json()
        assert len(told["error"].pop("message")) == 100_000
        assert told == {"error": {"type": "requests", "param": None}}


async def test_answer_is_as_much_too_large_as_it_is_told_to_be(http: aiohttp.ClientSession) -> None:
    path, body = streamed("chat")
    async with FakeProvider([Step(text="one", large=Large(event=1_500_000, header=5_000)), Step(large=Large(gzip=2_500_000))]) as provider:
        async with http.post(provider.url + path, json=body) as response:
            assert response.headers["x-large"] == "x" * 5_000
            first, rest = (await response.read()).split(b"\n\n", 1)
        assert first == b"data: " + b"x" * 1_500_000
        assert text_of_events("chat", events_of(rest)) == "one"
        async with http.post(provider.url + path, json=body) as response:
            assert (await response.read()).startswith(b"x" * 2_500_000)
        assert provider.requests[1].sent < 20_000


async def test_kept_connection_is_closed_unanswered_when_it_is_reused() -> None:
    path, body = CALLS["chat"]
    payload = json.dumps(body).encode()
    request = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(payload), payload)
    async with FakeProvider([Step(text="one", hang_up="reuse")]) as provider:
        host, _, port = provider.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        writer.write(request)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert len(provider.requests) == 1


async def test_requests_are_recorded_with_their_headers_and_connection(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["claude"]
    async with FakeProvider() as provider:
        for _ in range(2):
            async with http.post(provider.url + path, json=body, headers={"X-Api-Key": "k"}) as response:
                await response.read()
        first, second = provider.requests
        assert (first.headers["x-api-key"], first.json, first.fate) == ("k", body, Fate.ANSWERED)
        assert first.connection == second.connection
        async with http.get(provider.url + "/fake/stats") as response:
            stats = await response.json()
    assert (stats["requests"], stats["connections"], stats["fates"]["answered"]) == (2, 1, 2)
    assert stats["calls"][0]["model"] == "m"


async def test_bad_request_is_told_when_the_bytes_are_no_http() -> None:
    async with FakeProvider() as provider:
        host, _, port = provider.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"hello\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()


async def test_chunked_request_is_read_whole(http: aiohttp.ClientSession) -> None:
    path, body = CALLS["chat"]

    async def upload() -> AsyncIterator[bytes]:
        for byte in json.dumps(body).encode():
            yield bytes([byte])

    async with FakeProvider() as provider, http.post(provider.url + path, data=upload()) as response:
        assert response.status == 200
        assert provider.requests[0].json == body


async def test_unknown_path_is_not_found(http: aiohttp.ClientSession) -> None:
    async with FakeProvider() as provider:
        for ask in (http.get(provider.url + "/nothing"), http.post(provider.url + "/nothing", json={})):
            async with ask as response:
                assert response.status == 404


async def test_certificate_is_refused_when_nobody_signed_it(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with FakeProvider(tls=context) as provider:
        assert provider.url.startswith("https://")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.post(provider.url + "/v1/messages", json={})
        assert provider.requests == []


def self_signed(folder: Path) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_script_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('[{"status": 529}, {"text": "one two", "split": [1, 7], "fault": {"kind": "reset", "after_events": 4}}]')
    first, second = load_script(file)
    assert (first.status, second.fault) == (529, Break(kind="reset", after_events=4))


def test_script_names_the_wrong_field_when_it_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('[{"status": 529}, {"txt": "one"}]')
    with pytest.raises(ValueError, match=r"call 1\.txt: Extra inputs"):
        load_script(file)


@given(st.lists(st.binary(max_size=20)), st.one_of(st.none(), st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1).map(tuple)))
def test_splitting_never_changes_the_bytes(parts: list[bytes], split: int | tuple[int, ...] | None) -> None:
    assert b"".join(pieces(parts, split)) == b"".join(parts)


@given(st.lists(st.binary(min_size=1, max_size=20)), st.integers(0, 9), st.integers(0, 99))
def test_cut_keeps_a_beginning(parts: list[bytes], events: int, size: int) -> None:
    kept = cut(parts, Break(kind="cut", after_events=events, after_bytes=size))
    assert b"".join(kept) == b"".join(itertools.islice(parts, events))[:size]
