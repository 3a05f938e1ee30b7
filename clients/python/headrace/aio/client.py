"""The client for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from headrace._channel import CANCEL_TIMEOUT, SHORT, channel_options, metadata_of
from headrace._reading import Reading
from headrace.aio.session import Session
from headrace.aio.stream import OwnStream, Stream
from headrace.answer import Answer
from headrace.errors import TimedOut, from_rpc
from headrace.request import Prompt, RequestFields, build_request
from headrace.retry import Deadline, Retry, Tries
from headrace.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from headrace.v1.generation_service_pb2 import SubmitGenerationRequest
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace.v1.lifecycle_pb2 import StateTransition
from headrace.v1.provider_service_pb2_grpc import ProviderServiceStub
from headrace.v1.request_service_pb2 import CancelRequestRequest, GetRequestRequest, RequestRecord, WatchRequestRequest
from headrace.v1.request_service_pb2_grpc import RequestServiceStub


class Client:
    """A connection to a Headrace service, made and used in one event loop. Otherwise as `headrace.Client`:

    async with aio.Client("localhost:50051") as client:
        answer = await client.generate("What does a river do?", provider="claude", max_tokens=200)
        print(answer.text)
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry: Retry | None = None,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        """See headrace.Client."""
        all_options = channel_options(options)
        self._channel = (
            grpc.aio.insecure_channel(target, all_options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, all_options)
        )
        self.retry = retry or Retry()
        self.metadata = metadata_of(token)
        """What every call carries; to be given to calls of the stubs below."""
        self.generation = GenerationServiceStub(self._channel)
        """The stubs, for everything that has no shorter way here. Their errors are grpc.RpcError: see `headrace.errors.from_rpc`."""
        self.requests = RequestServiceStub(self._channel)
        self.providers = ProviderServiceStub(self._channel)
        self.analytics = AnalyticsServiceStub(self._channel)
        self._cancels: dict[str, Any] = {}

    async def close(self) -> None:
        """End the connection, when what was cancelled is on record. Streams and sessions are to be closed before."""
        for request_id in list(self._cancels):
            await self.wait_for_cancel(request_id)
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    # ------------------------------------------------------------ generating

    async def generate(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Answer:  # noqa: ASYNC109
        """The whole answer at once. `timeout`: seconds that everything may take; None: as the request or the service says.

        Raises HeadraceError. Where its task is cancelled, so is the generation, as that of a stream that is left.
        """
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        deadline = Deadline(timeout)
        tries = Tries(self.retry, deadline)
        try:
            while True:
                try:
                    response = await self.generation.Generate(request, timeout=deadline.patience, metadata=self.metadata)
                    return Answer(response.request_id, response.result)
                except grpc.RpcError as error:
                    failure = from_rpc(error, request.request_id)
                await asyncio.sleep(tries.delay(reading.lost(failure)))
        except (asyncio.CancelledError, TimedOut):
            if not reading.runs_on:
                self.cancel_soon(request.request_id)
            raise

    def stream(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Stream:
        """The answer as it comes. The request goes out at once; errors come out of the stream."""
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        return Stream(reading, OwnStream(self, reading, timeout))

    def session(self) -> Session:
        """Many generations at once over one connection's stream."""
        return Session(self)

    async def submit(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> str:  # noqa: ASYNC109
        """Start a generation that needs no reader; the id of the request, once it is on record. `timeout` bounds the generation.

        Raises HeadraceError where it was not accepted.
        """
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        tries = Tries(self.retry, Deadline(timeout))
        while True:
            try:
                accepted = await self.generation.SubmitGeneration(
                    SubmitGenerationRequest(request=request), timeout=SHORT, metadata=self.metadata
                )
                return accepted.request_id
            except grpc.RpcError as error:
                failure = from_rpc(error, request.request_id)
            await asyncio.sleep(tries.delay(reading.lost(failure)))

    def attach(self, request_id: str, next_index: int = 0, *, timeout: float | None = None) -> Stream:
        """Read a generation that runs or has ended, from chunk `next_index` on. Closing the stream does not cancel it."""
        reading = Reading(request_id, next_index=next_index)
        return Stream(reading, OwnStream(self, reading, timeout))

    # ------------------------------------------------------------ requests

    async def get(self, request_id: str) -> RequestRecord:
        """The record of a request. Raises NotFound."""
        try:
            found = await self.requests.GetRequest(GetRequestRequest(request_id=request_id), timeout=SHORT, metadata=self.metadata)
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error
        return found.request

    async def watch(self, request_id: str) -> AsyncIterator[StateTransition]:
        """The transitions of a request: history first, then live, until it has ended. Raises NotFound."""
        call = self.requests.WatchRequest(WatchRequestRequest(request_id=request_id), metadata=self.metadata)
        try:
            async for response in call:
                yield response.transition
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error
        finally:
            call.cancel()

    async def cancel(self, request_id: str) -> RequestRecord:
        """End a request, and wait until its end is on record: that record. One that has ended stays as it is. Raises NotFound."""
        try:
            ended = await self.requests.CancelRequest(CancelRequestRequest(request_id=request_id), timeout=SHORT, metadata=self.metadata)
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error
        return ended.request

    # ------------------------------------------------------------ for streams and sessions

    def cancel_soon(self, request_id: str) -> None:
        """Cancel without waiting. What comes of it is in the record."""
        call = self.requests.CancelRequest(CancelRequestRequest(request_id=request_id), timeout=CANCEL_TIMEOUT, metadata=self.metadata)
        self._cancels[request_id] = call
        call.add_done_callback(lambda _: self._cancels.pop(request_id, None))

    async def wait_for_cancel(self, request_id: str) -> None:
        """Wait for `cancel_soon`."""
        if (call := self._cancels.get(request_id)) is not None:
            with contextlib.suppress(grpc.RpcError):
                await call
