"""A client of StreamGenerate that costs little: one generation a stream, or many over one, over HTTP/2 by hand."""

import asyncio
import itertools
import time
import uuid
from functools import partial
from typing import Any

from http2 import Connection, Stream
from load_http import QUESTION
from meter import Answer, Meter

from headrace.v1 import message_pb2, request_pb2
from headrace.v1.generation_service_pb2 import StreamGenerateRequest, StreamGenerateResponse

PATH = "/headrace.v1.GenerationService/StreamGenerate"


async def connect(host: str, port: int, number: int) -> list[Connection]:
    """So many connections to a server."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(f"{host}:{port}"), host, port))[1] for _ in range(number)]


def command(provider: str, model: str, *, messages: int = 1, **fields: Any) -> bytes:
    """The message that begins a generation; the conversation has so many messages."""
    said = message_pb2.ChatMessage(role=message_pb2.MESSAGE_ROLE_USER, content=[message_pb2.ContentPart(text=QUESTION)])
    wanted = request_pb2.GenerateRequest(provider=provider, model=model, messages=[said] * messages, **fields)
    return StreamGenerateRequest(generate=wanted).SerializeToString()


class GrpcClient:
    """Each generation on a stream of its own, over a few connections in turn. The end of the stream is the end of the answer."""

    def __init__(self, connections: list[Connection], provider: str, model: str, messages: int = 1) -> None:
        self._connections = connections
        self._turns = itertools.cycle(connections)
        self._command = command(provider, model, messages=messages)

    async def begin(self, meter: Meter) -> Answer:
        """Ask; the answer comes in by itself."""
        connection, answer = next(self._turns), Answer(meter)
        connection.send(connection.open(PATH, partial(self._take, answer), answer.end), self._command, last=True)
        return answer

    @staticmethod
    def _take(answer: Answer, message: bytes) -> None:
        now = time.monotonic_ns()
        for event in StreamGenerateResponse.FromString(message).events:
            kind = event.WhichOneof("event")
            if kind == "chunk":
                answer.take(event.chunk.text.encode(), now)
            elif kind == "failed":
                answer.end(event.failed.message)

    async def close(self) -> None:
        """Leave, whatever runs."""
        for connection in self._connections:
            connection.close()


class MultiplexedClient:
    """All generations on one stream for each connection, in turn. `completed` is the end of an answer."""

    def __init__(self, connections: list[Connection], provider: str, model: str) -> None:
        self._connections = connections
        self._answers: dict[str, Answer] = {}
        streams = [(connection, connection.open(PATH, self._take, self._lost)) for connection in connections]
        self._turns = itertools.cycle(streams)
        self._provider, self._model = provider, model

    async def begin(self, meter: Meter) -> Answer:
        """Ask; the answer comes in by itself."""
        answer = Answer(meter, request_id=str(uuid.uuid4()))
        self._answers[answer.request_id] = answer
        turn: tuple[Connection, Stream] = next(self._turns)
        connection, stream = turn
        connection.send(stream, command(self._provider, self._model, request_id=answer.request_id), last=False)
        return answer

    def _take(self, message: bytes) -> None:
        now = time.monotonic_ns()
        for event in StreamGenerateResponse.FromString(message).events:
            kind = event.WhichOneof("event")
            if kind == "chunk":
                self._answers[event.request_id].take(event.chunk.text.encode(), now)
            elif kind == "completed":
                self._answers.pop(event.request_id).end()
            elif kind == "failed":
                self._answers.pop(event.request_id).end(event.failed.message)

    def _lost(self, why: str | None) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.end(why or "the stream has ended")

    async def close(self) -> None:
        """Leave, whatever runs."""
        for connection in self._connections:
            connection.close()
