"""The client for blocking callers."""

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from headrace._channel import CANCEL_TIMEOUT, SHORT, channel_options, metadata_of
from headrace._reading import Reading
from headrace.answer import Answer
from headrace.errors import TimedOut, from_rpc
from headrace.request import Prompt, RequestFields, build_request
from headrace.retry import Deadline, Retry, Tries
from headrace.session import Session
from headrace.stream import OwnStream, Stream
from headrace.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from headrace.v1.generation_service_pb2 import SubmitGenerationRequest
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace.v1.lifecycle_pb2 import StateTransition
from headrace.v1.provider_service_pb2_grpc import ProviderServiceStub
from headrace.v1.request_service_pb2 import CancelRequestRequest, GetRequestRequest, RequestRecord, WatchRequestRequest
from headrace.v1.request_service_pb2_grpc import RequestServiceStub


class Client:
    """A connection to a Headrace service. Safe to use from several threads.

        with headrace.Client("localhost:50051") as client:
            print(client.generate("What does a river do?", provider="claude", max_tokens=200).text)

    Errors are HeadraceError and its subclasses. A lost connection is made again, and a request that the service had no place for is sent
    again, as `retry` says, always under its one id: no generation is ever run twice for it. What a *provider* failed at is not tried again
    from here: the service has done that.
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
        """`target`: address as gRPC takes it, HOST:PORT or dns:///…. `token`: sent with every call as `authorization: Bearer`.

        `credentials`: TLS, such as `grpc.ssl_channel_credentials()`; without them the connection is plaintext. `options`: of the channel.
        """
        all_options = channel_options(options)
        self._channel = (
            grpc.insecure_channel(target, all_options) if credentials is None else grpc.secure_channel(target, credentials, all_options)
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

    def close(self) -> None:
        """End the connection, when what was cancelled is on record. Streams and sessions are to be closed before."""
        for request_id in list(self._cancels):
            self.wait_for_cancel(request_id)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ generating

    def generate(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Answer:
        """The whole answer at once. `timeout`: seconds that everything may take; None: as the request or the service says.

        Raises HeadraceError. Interrupted (Ctrl-C), it cancels the generation as a stream does that is left.
        """
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        deadline = Deadline(timeout)
        tries = Tries(self.retry, deadline)
        try:
            while True:
                try:
                    response = self.generation.Generate(request, timeout=deadline.patience, metadata=self.metadata)
                    return Answer(response.request_id, response.result)
                except grpc.RpcError as error:
                    failure = from_rpc(error, request.request_id)
                time.sleep(tries.delay(reading.lost(failure)))
        except (KeyboardInterrupt, TimedOut):
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

    def submit(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> str:
        """Start a generation that needs no reader; the id of the request, once it is on record. `timeout` bounds the generation.

        Raises HeadraceError where it was not accepted.
        """
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        tries = Tries(self.retry, Deadline(timeout))
        while True:
            try:
                return self.generation.SubmitGeneration(
                    SubmitGenerationRequest(request=request), timeout=SHORT, metadata=self.metadata
                ).request_id
            except grpc.RpcError as error:
                failure = from_rpc(error, request.request_id)
            time.sleep(tries.delay(reading.lost(failure)))

    def attach(self, request_id: str, next_index: int = 0, *, timeout: float | None = None) -> Stream:
        """Read a generation that runs or has ended, from chunk `next_index` on. Closing the stream does not cancel it."""
        reading = Reading(request_id, next_index=next_index)
        return Stream(reading, OwnStream(self, reading, timeout))

    # ------------------------------------------------------------ requests

    def get(self, request_id: str) -> RequestRecord:
        """The record of a request. Raises NotFound."""
        try:
            return self.requests.GetRequest(GetRequestRequest(request_id=request_id), timeout=SHORT, metadata=self.metadata).request
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error

    def watch(self, request_id: str) -> Iterator[StateTransition]:
        """The transitions of a request: history first, then live, until it has ended. Raises NotFound."""
        call = self.requests.WatchRequest(WatchRequestRequest(request_id=request_id), metadata=self.metadata)
        try:
            for response in call:
                yield response.transition
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error
        finally:
            call.cancel()

    def cancel(self, request_id: str) -> RequestRecord:
        """End a request, and wait until its end is on record: that record. One that has ended stays as it is. Raises NotFound."""
        try:
            return self.requests.CancelRequest(CancelRequestRequest(request_id=request_id), timeout=SHORT, metadata=self.metadata).request
        except grpc.RpcError as error:
            raise from_rpc(error, request_id) from error

    # ------------------------------------------------------------ for streams and sessions

    def cancel_soon(self, request_id: str) -> None:
        """Cancel without waiting. What comes of it is in the record."""
        call = self.requests.CancelRequest.future(
            CancelRequestRequest(request_id=request_id), timeout=CANCEL_TIMEOUT, metadata=self.metadata
        )
        self._cancels[request_id] = call
        call.add_done_callback(lambda _: self._cancels.pop(request_id, None))

    def wait_for_cancel(self, request_id: str) -> None:
        """Wait for `cancel_soon`."""
        if (call := self._cancels.get(request_id)) is not None:
            with contextlib.suppress(grpc.FutureCancelledError):
                call.exception()
