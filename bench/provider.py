"""A provider that is never the bottleneck: prebuilt bytes over a raw asyncio protocol, in the shapes of OpenAI and Anthropic.

    python bench/provider.py [--listen 127.0.0.1:0]

    POST …/chat/completions, POST …/messages     an answer, streamed or whole; connections are kept

The name of the model says what is answered: `bench-n64-d20` is 64 chunks, one every 20 ms, the first at once. With `d0` all of them are
sent at once, each by a write of its own. `-k16` makes every chunk 16 KiB of text. `-cut` closes the connection after half of the chunks,
`-e503` answers that status instead.

The text of each chunk holds one `^`, and nothing else does, so that whoever reads can count chunks. Where there is a delay, the time of the
write follows: 19 digits, nanoseconds of the machine's monotonic clock.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from headrace_server.program import run

MARK = b"^"
STAMP = b"^" + b"0" * 19
INPUT_TOKENS = 12
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
SPEC = re.compile(r"n(?P<chunks>\d+)-d(?P<delay>\d+)(-k(?P<kib>\d+))?(?P<cut>-cut)?(-e(?P<status>\d+))?$")
MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
STREAM = re.compile(rb'"stream"\s*:\s*true')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent for a model, as bytes."""

    first: bytes
    """Head of the answer and the events before the text."""
    chunk: bytes
    """An event of text."""
    last: tuple[bytes, ...]
    """The events behind the text."""
    whole: bytes
    """The answer that is not streamed."""
    chunks: int
    delay: float
    """Seconds between two chunks."""
    cut: bool


def _framed(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def _json_answer(value: object, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def _event(value: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _openai(model: str, text: str, chunks: int) -> tuple[list[bytes], bytes, list[bytes], bytes]:
    base = {"id": "chatcmpl-bench0123456789abcdef", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model}
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": chunks, "total_tokens": INPUT_TOKENS + chunks}

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        return _event({**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    message = {"role": "assistant", "content": text * chunks}
    whole = {**base, "object": "chat.completion", "usage": usage, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    last = [event({}, "stop"), _event({**base, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return [event({"role": "assistant", "content": ""})], event({"content": text}), last, _json_answer(whole)


def _anthropic(model: str, text: str, chunks: int) -> tuple[list[bytes], bytes, list[bytes], bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": kind, **fields}, kind)

    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": chunks}
    message = {"id": "msg_bench0123456789", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    first = [
        event("message_start", message={**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    last = [
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": chunks}),
        event("message_stop"),
    ]
    whole = {**message, "content": [{"type": "text", "text": text * chunks}], "stop_reason": "end_turn", "usage": usage}
    return first, event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}), last, _json_answer(whole)


SHAPES = {b"/chat/completions": _openai, b"/messages": _anthropic}


@lru_cache
def answer_of(path: bytes, model: str) -> Answer | bytes:
    """What a model answers at a path; bytes where it is no stream, whatever was asked for."""
    spec, shape = SPEC.search(model), next((SHAPES[end] for end in SHAPES if path.endswith(end)), None)
    if spec is None or shape is None:
        return _json_answer({"error": {"message": f"no such path or model: {path!r} {model}", "type": "not_found"}}, "404 Not Found")
    if spec["status"]:
        return _json_answer({"error": {"message": "as asked for", "type": "error"}}, f"{spec['status']} As Asked For")
    chunks, delay = int(spec["chunks"]), int(spec["delay"]) / 1000
    text = STAMP.decode() if delay else " tok^"
    text = "x" * (int(spec["kib"] or 0) * 1024 - len(text)) + text
    first, chunk, last, whole = shape(model, text, chunks)
    return Answer(
        first=HEAD + b"".join(map(_framed, first)),
        chunk=_framed(chunk),
        last=(*map(_framed, last[:-1]), _framed(last[-1]) + b"0\r\n\r\n"),
        whole=whole,
        chunks=chunks,
        delay=delay,
        cut=spec["cut"] is not None,
    )


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket: socket.socket = self._transport.get_extra_info("socket")
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head_ends = self._rest.find(b"\r\n\r\n")
        if head_ends < 0:
            return
        head, body = self._rest[:head_ends], self._rest[head_ends + 4 :]
        length = LENGTH.search(head)
        if (length and len(body) < int(length[1])) or (CHUNKED.search(head) and not body.endswith(b"0\r\n\r\n")):
            return
        self._rest = b""
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        model = MODEL.search(body)
        answer = answer_of(path, model[1].decode() if model else "")
        if isinstance(answer, bytes):
            self._transport.write(answer)
        elif not STREAM.search(body):
            self._transport.write(answer.whole)
        elif answer.delay:
            self._write(answer.first)
            self._pace(answer, 0, asyncio.get_running_loop().time())
        else:
            self._write(answer.first)
            for _ in range(answer.chunks // 2 if answer.cut else answer.chunks):
                self._write(answer.chunk)
            self._end(answer)

    def _pace(self, answer: Answer, number: int, began: float) -> None:
        """Send a chunk, and the next one when it is due. Delays do not add up."""
        if answer.cut and number == answer.chunks // 2:
            return self._end(answer)
        self._write(answer.chunk.replace(STAMP, b"^%019d" % time.monotonic_ns()))
        if number + 1 == answer.chunks:
            return self._end(answer)
        due = began + (number + 1) * answer.delay
        self._timer = asyncio.get_running_loop().call_at(due, self._pace, answer, number + 1, began)

    def _end(self, answer: Answer) -> None:
        if answer.cut:
            return self._transport.close()
        for event in answer.last:
            self._write(event)

    def _write(self, data: bytes) -> None:
        """A system call of its own for each piece, as a provider's pieces come; the loop would join those of one turn."""
        sent = 0
        if not self._transport.is_closing() and self._transport.get_write_buffer_size() == 0:
            try:
                sent = os.write(self._socket.fileno(), data)
            except OSError:  # full, or gone: the loop finds out
                sent = 0
        if sent < len(data):
            self._transport.write(data[sent:])


async def serve(host: str, port: int) -> None:
    """Answer until the process ends; one line says where."""
    server = await asyncio.get_running_loop().create_server(Connection, host, port, backlog=2048)
    print(f"provider listening on {host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0")
    address, _, number = parser.parse_args().listen.rpartition(":")
    run(serve(address, int(number)))
