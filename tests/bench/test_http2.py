import asyncio
import contextlib
import struct

import pytest
from http2 import ACK, CANCEL, DATA, END_STREAM, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE, Connection, frame

PREFACE = 24


def message(body):
    return struct.pack(">BI", 0, len(body)) + body


async def frames(reader):
    """The frames that a client sends."""
    assert (await reader.readexactly(PREFACE)).startswith(b"PRI * HTTP/2.0")
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(9)
            yield head[3], head[4], struct.unpack(">I", head[5:])[0], await reader.readexactly(int.from_bytes(head[:3]))


@contextlib.asynccontextmanager
async def connected(answer):
    """A connection to a server that is played by `answer(reader, writer)`."""
    playing = []

    async def play(reader, writer):
        playing.append(asyncio.current_task())
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection("test"), "127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        await asyncio.wait_for(asyncio.gather(*playing), 5)


def opened(connection):
    """A stream, the list of its messages, and the future of its end."""
    messages, ended = [], asyncio.get_running_loop().create_future()
    return connection.open("/a/B", messages.append, ended.set_result), messages, ended


@pytest.mark.parametrize("piece", [1, 7, 13, 10_000])
async def test_messages_come_whole_when_the_bytes_are_cut_anywhere(piece):
    async def answer(reader, writer):
        async for kind, flags, number, _ in frames(reader):
            if kind == DATA and flags & END_STREAM:
                both = message(b"first") + message(b"x" * 500)
                sent = frame(SETTINGS, 0, 0) + frame(HEADERS, 4, number, b"\x88") + frame(DATA, 0, number, both[:8])
                sent += frame(DATA, 0, number, both[8:] + message(b"")) + frame(HEADERS, 4 | END_STREAM, number, b"")
                for at in range(0, len(sent), piece):
                    writer.write(sent[at : at + piece])
                    await asyncio.sleep(0)

    async with connected(answer) as connection:
        stream, messages, ended = opened(connection)
        connection.send(stream, b"question", last=True)
        assert await asyncio.wait_for(ended, 5) is None

    assert messages == [b"first", b"x" * 500, b""]


async def test_what_exceeds_the_window_waits_until_the_server_widens_it():
    got, paused, go_on = bytearray(), asyncio.Event(), asyncio.Event()

    async def answer(reader, writer):
        async def widen(number):
            await go_on.wait()
            writer.write(
                frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 100_000)) + frame(WINDOW_UPDATE, 0, number, struct.pack(">I", 100_000))
            )

        async for kind, flags, number, payload in frames(reader):
            if kind == DATA:
                assert len(payload) <= 16_384
                got.extend(payload)
                if len(got) == 3 * 16_384:  # a fourth frame of that size would be one byte too many
                    paused.set()
                    widening = asyncio.create_task(widen(number))
                if flags & END_STREAM:
                    await widening
                    writer.write(frame(HEADERS, 4 | END_STREAM, number, b""))

    async with connected(answer) as connection:
        stream, _, ended = opened(connection)
        connection.send(stream, b"y" * 100_000, last=True)
        await asyncio.wait_for(paused.wait(), 5)
        await asyncio.sleep(0.05)
        before = len(got)
        go_on.set()
        assert await asyncio.wait_for(ended, 5) is None

    assert before == 3 * 16_384
    assert bytes(got) == message(b"y" * 100_000)


async def test_a_ping_is_answered_and_a_setting_acknowledged():
    seen = []

    async def answer(reader, writer):
        writer.write(frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678"))
        async for kind, flags, _, payload in frames(reader):
            if flags & ACK and kind in (PING, SETTINGS):
                seen.append((kind, payload))
            if kind == PING:
                writer.write(frame(HEADERS, 4 | END_STREAM, 1, b""))

    async with connected(answer) as connection:
        _, _, ended = opened(connection)
        await asyncio.wait_for(ended, 5)

    assert seen == [(SETTINGS, b""), (PING, b"12345678")]


async def test_the_end_says_why_when_the_server_resets_the_stream():
    async def answer(reader, writer):
        async for kind, _, number, _ in frames(reader):
            if kind == HEADERS:
                writer.write(frame(RESET, 0, number, struct.pack(">I", 7)))

    async with connected(answer) as connection:
        _, _, ended = opened(connection)
        assert "error 7" in await asyncio.wait_for(ended, 5)


async def test_the_end_says_why_when_the_connection_is_lost():
    async def answer(reader, writer):
        await reader.readexactly(PREFACE)

    async with connected(answer) as connection:
        _, _, ended = opened(connection)
        assert "lost" in await asyncio.wait_for(ended, 5)


async def test_a_cancelled_stream_is_reset_and_nothing_more_is_heard_of_it():
    resets = []

    async def answer(reader, writer):
        async for kind, _, number, payload in frames(reader):
            if kind == HEADERS:
                writer.write(frame(DATA, 0, number, message(b"one")))
            elif kind == RESET:
                resets.append((number, struct.unpack(">I", payload)[0]))
                writer.write(frame(DATA, 0, number, message(b"two")) + frame(HEADERS, 4 | END_STREAM, number + 2, b""))

    async with connected(answer) as connection:
        got, other_ended = [], asyncio.get_running_loop().create_future()

        def take(body):
            got.append(body)
            connection.cancel(stream)
            connection.open("/a/B", got.append, lambda why: other_ended.done() or other_ended.set_result(why))

        stream = connection.open("/a/B", take, lambda why: got.append(why))
        await asyncio.wait_for(other_ended, 5)

    assert resets == [(1, CANCEL)]
    assert got[0] == b"one"
    assert b"two" not in got
