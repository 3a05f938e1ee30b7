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

NOT_ON_RECORD = frozenset({"SHUTTING_DOWN", "STORAGE", "REQUEST_NOT_FOUND", "TOO_MANY_IN_FLIGHT"})
"""Subreasons of failures that are no end of a request."""

PATIENCE = 20
"""Deadline of every RPC, in seconds: reached only where the service hangs."""


View = dict[int, str]
"""What one reader was streamed: texts by the index of their chunk."""


@dataclass
class Sent:
    """A request, and what was seen of it by whoever asked for it, in all processes that it met."""

    message: request_pb2.GenerateRequest
    accepted: bool = False
    views: list[View] = field(default_factory=list)
    """What each reader was streamed."""
    completed: set[str] = field(default_factory=set)
    """Every text that was told with `completed`."""
    failed: set[str] = field(default_factory=set)
    """Every code that was told with `failed`."""
    is_kept: bool = False
    """Whether its chunks are kept for readers that come back."""

    def __post_init__(self) -> None:
        self.is_kept = self.message.on_disconnect == request_pb2.DISCONNECT_POLICY_KEEP

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.message.request_id

    @property
    def texts(self) -> list[str]:
        """What each reader was streamed, as one text."""
        return ["".join(view[index] for index in sorted(view)) for view in self.views]

    def look(self) -> View:
        """Another reader comes."""
        self.views.append({})
        return self.views[-1]

    def saw(self, event: Any, view: View) -> None:
        """One event of a stream."""
        kind = event.WhichOneof("event")
        if kind == "failed":
            self._saw_failure(event.failed)
            return
        self.accepted = True
        if kind == "chunk":
            view[event.chunk.index] = event.chunk.text
        elif kind == "discontinuity":
            for index in [index for index in view if index >= event.discontinuity.discard_from_index]:
                del view[index]
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
        self,
        messages: Sequence[request_pb2.GenerateRequest],
        *,
        pause: float = 0,
        cancel: Sequence[str] = (),
        leave_after: float | None = None,
    ) -> None:
        """Run these on one stream, `pause` seconds apart, cancel some, and perhaps leave before the end."""

        views: dict[str, View] = {}

        async def commands() -> AsyncIterator[Any]:
            for message in messages:
                views[message.request_id] = self._remember(message).look()
                yield generation_service_pb2.StreamGenerateRequest(generate=message)
                await asyncio.sleep(pause)
            for request_id in cancel:
                command = generation_service_pb2.CancelCommand(request_id=request_id)
                yield generation_service_pb2.StreamGenerateRequest(cancel=command)

        with contextlib.suppress(grpc.RpcError, TimeoutError):
            call = self._stub.StreamGenerate(commands(), timeout=PATIENCE)
            async with asyncio.timeout(leave_after):
                async for response in call:
                    for event in response.events:
                        self._sent[event.request_id].saw(event, views[event.request_id])

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
        sent.is_kept = True
        try:
            await self._stub.SubmitGeneration(generation_service_pb2.SubmitGenerationRequest(request=message), timeout=PATIENCE)
            sent.accepted = True
            await self.attach(message.request_id)
        except grpc.RpcError as error:
            sent.saw_status(error)

    async def attach(self, request_id: str) -> None:
        """Read one that was sent before."""
        sent = self._sent[request_id]
        view = sent.look()
        wanted = generation_service_pb2.AttachGenerationRequest(request_id=request_id)
        with contextlib.suppress(grpc.RpcError):
            async for response in self._stub.AttachGeneration(wanted, timeout=PATIENCE):
                for event in response.events:
                    sent.saw(event, view)

    def _remember(self, message: request_pb2.GenerateRequest) -> Sent:
        return self._sent.setdefault(message.request_id, Sent(message))


def _text(result: Any) -> str:
    return "".join(part.text for part in result.content)
