"""Callers of a service that may die at any moment, and what they saw until then."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from headrace.v1 import error_pb2, generation_service_pb2, message_pb2, request_pb2
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.service import details, said

NOT_ON_RECORD = frozenset({"SHUTTING_DOWN", "STORAGE"})
"""Subreasons of failures that leave no row."""

PATIENCE = 20
"""Deadline of every RPC, in seconds: reached only where the service hangs."""


@dataclass
class Sent:
    """A request, and what was seen of it by whoever asked for it, in all processes that it met."""

    message: request_pb2.GenerateRequest
    accepted: bool = False
    chunks: dict[int, str] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    """Every text that was told with `completed`."""
    failed: set[str] = field(default_factory=set)
    """Every code that was told with `failed`."""

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.message.request_id

    @property
    def text(self) -> str:
        """What was streamed."""
        return "".join(self.chunks[index] for index in sorted(self.chunks))

    def saw(self, event: Any) -> None:
        """One event of the stream."""
        kind = event.WhichOneof("event")
        if kind == "failed":
            self._saw_failure(event.failed)
            return
        self.accepted = True
        if kind == "chunk":
            self.chunks[event.chunk.index] = event.chunk.text
        elif kind == "discontinuity":
            first = event.discontinuity.discard_from_index
            self.chunks = {index: text for index, text in self.chunks.items() if index < first}
        elif kind == "completed":
            self.completed.add(_text(event.completed))

    def saw_answer(self, result: Any) -> None:
        """The answer of Generate."""
        self.accepted = True
        self.completed.add(_text(result))

    def saw_status(self, error: grpc.RpcError) -> None:
        """The status of an RPC about this request alone. One without our details is the connection's."""
        if (known := details(error).get("ProviderError")) is not None:
            self._saw_failure(known)

    def _saw_failure(self, error: Any) -> None:
        if error.subreason not in NOT_ON_RECORD:
            self.accepted = True
            self.failed.add(error_pb2.ErrorCode.Name(error.code).removeprefix("ERROR_CODE_").lower())


class Callers:
    """Every way to ask one service; what is seen goes to `sent`, by request id."""

    def __init__(self, channel: grpc.aio.Channel, sent: dict[str, Sent]) -> None:
        self._stub: Any = GenerationServiceStub(channel)
        self._sent = sent

    def request(self, provider: str, **fields: Any) -> request_pb2.GenerateRequest:
        """A new request. Its prompt begins with its id, so that the provider's calls can be told apart."""
        request_id = str(uuid.uuid4())
        plain: dict[str, Any] = {
            "request_id": request_id,
            "provider": provider,
            "messages": [said(f"{request_id} how are you?")],
            "retry": request_pb2.RetryConfig(initial_delay=Duration(nanos=1_000_000), max_attempts=3),
            "fallback": request_pb2.FallbackConfig(enabled=False),
        }
        return request_pb2.GenerateRequest(**(plain | fields))

    def invalid(self) -> request_pb2.GenerateRequest:
        """A request that validation refuses."""
        return self.request("", temperature=3, messages=[message_pb2.ChatMessage(role=message_pb2.MESSAGE_ROLE_USER)])

    async def stream(
        self, messages: Sequence[request_pb2.GenerateRequest], *, pause: float = 0, cancel: Sequence[str] = (), leave_after: float | None = None
    ) -> None:
        """Run these on one stream, `pause` seconds apart, cancel some, and perhaps leave before the end."""

        async def commands() -> AsyncIterator[Any]:
            for message in messages:
                yield generation_service_pb2.StreamGenerateRequest(generate=self._remember(message).message)
                await asyncio.sleep(pause)
            for request_id in cancel:
                command = generation_service_pb2.CancelCommand(request_id=request_id)
                yield generation_service_pb2.StreamGenerateRequest(cancel=command)

        with contextlib.suppress(grpc.RpcError, TimeoutError):
            call = self._stub.StreamGenerate(commands(), timeout=PATIENCE)
            async with asyncio.timeout(leave_after):
                async for response in call:
                    self._saw(response.events)

    async def generate(self, message: request_pb2.GenerateRequest) -> None:
        """Ask for a whole answer."""
        sent = self._remember(message)
        try:
            sent.saw_answer((await self._stub.Generate(message, timeout=PATIENCE)).result)
        except grpc.RpcError as error:
            sent.saw_status(error)

    async def submit(self, message: request_pb2.GenerateRequest) -> None:
        """Start one that needs no reader, then read it."""
        sent = self._remember(message)
        try:
            await self._stub.SubmitGeneration(generation_service_pb2.SubmitGenerationRequest(request=message), timeout=PATIENCE)
            sent.accepted = True
            await self.attach(message.request_id)
        except grpc.RpcError as error:
            sent.saw_status(error)

    async def attach(self, request_id: str) -> None:
        """Read one that was sent before."""
        wanted = generation_service_pb2.AttachGenerationRequest(request_id=request_id)
        with contextlib.suppress(grpc.RpcError):
            async for response in self._stub.AttachGeneration(wanted, timeout=PATIENCE):
                self._saw(response.events)

    def _remember(self, message: request_pb2.GenerateRequest) -> Sent:
        return self._sent.setdefault(message.request_id, Sent(message))

    def _saw(self, events: Sequence[Any]) -> None:
        for event in events:
            self._sent[event.request_id].saw(event)


def _text(result: Any) -> str:
    return "".join(part.text for part in result.content)
