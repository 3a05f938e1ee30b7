"""What a hostile provider can make a call take of memory: measured in a process that does nothing else."""

import asyncio
import functools
import json
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Awaitable[Any]]

MB = 1_000_000
MOST = 8 * MB
SMALL = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


async def line(exchange: Any) -> None:
    """One line of 30 MB, which no blank line ends."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ", *[b"x" * MB] * 30, b"\n\n")


async def header(exchange: Any) -> None:
    """A header of 200 KB."""
    await exchange.answer(SMALL, extra=f"x-large: {'w' * 200_000}\r\n")


async def headers(exchange: Any) -> None:
    """30 MB of headers that never end."""
    await exchange.send(b"HTTP/1.1 200 OK\r\n", *[b"x-large: " + b"w" * 10_000 + b"\r\n"] * 3_000)


@functools.cache
def bomb() -> bytes:
    """200 MB of one letter, in about 200 KB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(b"x" * MB) for _ in range(200)), packer.flush()])


async def gzip_bomb(exchange: Any) -> None:
    """An answer that unfolds to 200 MB."""
    await exchange.answer(bomb(), extra="content-encoding: gzip\r\n")


async def gzip_bomb_of_an_error(exchange: Any) -> None:
    """An error that unfolds to 200 MB."""
    await exchange.answer(bomb(), status="500 Internal Server Error", extra="content-encoding: gzip\r\n")


async def error(exchange: Any) -> None:
    """An error of 30 MB, with keys all over it."""
    await exchange.send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", *[b"sk-canary-0123456789 " * 50_000] * 30)


@pytest.mark.parametrize("transport", ["httptools", "aiohttp", "httpx"])
@pytest.mark.parametrize(
    ("large", "outcomes"),
    [
        (line, {"server_error EVENT_TOO_LARGE"}),
        (header, {"server_error EVENT_TOO_LARGE"}),
        (headers, {"server_error EVENT_TOO_LARGE", "network_error"}),
        (gzip_bomb, {"server_error MALFORMED_EVENT"}),
        (gzip_bomb_of_an_error, {"server_error NON_JSON"}),
        (error, {"server_error NON_JSON"}),
    ],
)
async def test_memory_stays_bounded_when_a_provider_sends_too_much(peer: StartPeer, transport: str, large: Any, outcomes: set[str]) -> None:
    async def handler(exchange: Any) -> None:
        if exchange.head.startswith(b"POST /small"):
            await exchange.answer(SMALL)
        else:
            await large(exchange)
            exchange.writer.close()

    server = await peer(handler)
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("one_call.py")), transport, server.url, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await child.communicate()
    assert child.returncode == 0
    ended = json.loads(told)
    assert ended["outcome"] in outcomes
    assert ended["grown"] < MOST
