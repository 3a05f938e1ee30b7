"""GenerationService: decode, hand to the engine, tell its events."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.v1 import generation_service_pb2 as pb
from headrace.v1 import request_pb2
from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, Fault, HeadraceError, Refusal, Subreason
from headrace_server.domain.events import Completed, Failed
from headrace_server.domain.identity import new_id
from headrace_server.domain.lifecycle import Transition
from headrace_server.domain.plan import Plan
from headrace_server.domain.ports import WallClock
from headrace_server.domain.request import DisconnectPolicy
from headrace_server.engine import Caller, Engine
from headrace_server.generation import ROOM, Generation, Reader, Room
from headrace_server.ledger import provider_error
from headrace_server.rpc.codec_event import encode_event
from headrace_server.rpc.codec_plan import encode_plan
from headrace_server.rpc.codec_request import decode_generate_request
from headrace_server.rpc.codec_result import encode_result
from headrace_server.rpc.codec_values import STATE
from headrace_server.rpc.methods import Context
from headrace_server.rpc.status import abort
from headrace_server.rpc.unread import checked_uuid, describe, is_uuid
from headrace_server.rpc.writer import Writer
from headrace_server.waker import Waker


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What one stream may ask of the service."""

    max_in_flight: int = 64
    """Most generations that run at once on it."""
    max_unread: int = ROOM
    """Bytes of chunks that may wait for its caller, of all its generations, before they stop reading their providers."""
    patience: float = 60
    """Seconds that its caller may take nothing."""


class GenerationServicer:
    """See generation_service.proto."""

    def __init__(self, engine: Engine, *, clock: WallClock, settings: StreamSettings) -> None:
        self.engine = engine
        self.settings = settings
        self._clock = clock

    async def Generate(self, request: request_pb2.GenerateRequest, context: Context) -> pb.GenerateResponse:  # noqa: D102
        generation = await self.start(request, context, stream=False)
        outcome = await self._stay_until_the_end(generation, context)
        if isinstance(outcome, Failed):
            await abort(context, outcome.error)
        assert isinstance(outcome, Completed)
        return pb.GenerateResponse(request_id=generation.request_id, result=encode_result(outcome.result))

    async def StreamGenerate(self, requests: AsyncIterator[pb.StreamGenerateRequest], context: Context) -> None:  # noqa: D102
        await _Session(self, context).run(requests)

    async def SubmitGeneration(self, request: pb.SubmitGenerationRequest, context: Context) -> pb.SubmitGenerationResponse:  # noqa: D102
        generation = await self.start(request.request, context, stream=True, alone=True)
        await generation.until(lambda: generation.is_accepted or generation.outcome is not None)
        await _say_hello(context, generation)
        if isinstance(generation.outcome, Failed) and not generation.outcome.error.attempts:
            await abort(context, generation.outcome.error)
        return pb.SubmitGenerationResponse(request_id=generation.request_id, state=STATE.numbers[generation.state])

    async def AttachGeneration(self, request: pb.AttachGenerationRequest, context: Context) -> None:  # noqa: D102
        generation = await self.engine.find(checked_uuid(request.request_id, "request_id"))
        _check_index(request.next_index)
        await _say_hello(context, generation)
        wakened = Waker()
        reader = generation.attach(request.next_index, wakened.wake)
        with Writer(context, pb.AttachGenerationResponse, self.settings.patience) as writer:
            try:
                while not reader.at_end:
                    if events := await self.encode(reader):
                        await writer.write(events)
                    elif not reader.at_end:
                        await wakened.wait()
            finally:
                reader.close(writer.stalled or _why_gone(context))
        if isinstance(generation.outcome, Failed):
            await abort(context, generation.outcome.error, delivered_chunks=generation.chunk_count)

    async def ExplainGeneration(self, request: pb.ExplainGenerationRequest, context: Context) -> pb.ExplainGenerationResponse:
        """What is wrong with the request is the answer, not an error."""
        now = self._clock()
        try:
            wanted = decode_generate_request(request.request, stream=True, request_id=new_id(now))
        except Refusal as refusal:
            return encode_plan(Plan(time=now, violations=refusal.fault.violations))
        return encode_plan(await self.engine.explain(wanted, Caller(time_left=context.time_remaining())))

    # ------------------------------------------------------------ for all of them

    async def start(
        self, message: request_pb2.GenerateRequest, context: Context, *, stream: bool, alone: bool = False, traceparent: str | None = None
    ) -> Generation:
        """Decode and begin. A request that is not valid leaves a row too. Raises HeadraceError, its `request_id` in the error.

        `alone`: the generation runs without a reader, and outlives the RPC's deadline.
        """
        caller = Caller(
            traceparent=traceparent or traceparent_of(context),
            time_left=None if alone else context.time_remaining(),
        )
        try:
            request = decode_generate_request(message, stream=stream, request_id=new_id(self._clock()))
        except Refusal as refusal:
            request_id = message.request_id if is_uuid(message.request_id) else new_id(self._clock())
            await self.engine.refuse(refusal.fault, request_id=request_id, unread=describe(message), caller=caller)
            raise HeadraceError(refusal.fault, request_id) from None
        if alone:
            request = request.model_copy(update={"on_disconnect": DisconnectPolicy.KEEP})
        return self.engine.start(request, caller)

    async def _stay_until_the_end(self, generation: Generation, context: Context) -> Completed | Failed:
        """Wait as the caller, whose going away counts from the first moment on."""
        wakened = Waker()
        reader = generation.attach(0, wakened.wake)
        try:
            await _say_hello(context, generation)
            reader.take()
            while (outcome := generation.outcome) is None:
                await wakened.wait()
                reader.take()
            return outcome
        finally:
            reader.close(_why_gone(context))

    async def encode(self, reader: Reader) -> list[Any]:
        """What is at hand for a reader, as messages."""
        request = reader.generation.request
        sent = self._clock() if request.timing else None
        taken = [*(await reader.catch_up()), *reader.take()] if reader.is_behind else reader.take()
        return [
            encode_event(request.request_id, event, sent=sent) for event in taken if not (request.quiet and isinstance(event, Transition))
        ]


_HELLO_TO_THE_SILENT, _HELLO_TO_ALL = 0.005, 0.25
"""Seconds after which a caller gets the headers of its stream by themselves: one that has not sent anything may be waiting for them. To
most they go with the first events, which spares a message."""
_MAX_OWN_EVENTS = 64
"""Answers to broken commands that may wait for a caller, before no more commands are read."""


class _Session:
    """One StreamGenerate: commands come in by a task of their own, events of all generations go out together."""

    def __init__(self, service: GenerationServicer, context: Context) -> None:
        self._service = service
        self._engine = service.engine
        self._settings = service.settings
        self._context = context
        self._traceparent = traceparent_of(context)
        self._readers: dict[str, Reader] = {}
        self._room = Room(service.settings.max_unread)
        self._ready: dict[str, Reader] = {}
        self._own_events: list[Any] = []
        self._own_events_are_out = Waker()
        self._wakened = Waker()
        self._seen: set[str] = set()
        self._last_outcome: Completed | Failed | None = None
        self._delivered_chunks: int | None = None
        """Of the generation with that outcome."""
        self._was_heard = False
        """Whether the caller has sent a command."""
        self._has_headers = self._headers_are_due = False
        self._headers_timer: asyncio.TimerHandle | None = None

    async def run(self, requests: AsyncIterator[pb.StreamGenerateRequest]) -> None:
        """Until the caller has half-closed and everything in flight has ended."""
        if hello := _hello(self._traceparent):
            self._has_headers = True
            await self._context.send_initial_metadata(hello)
        else:
            self._send_headers_after(_HELLO_TO_THE_SILENT, _HELLO_TO_ALL)
        commands = asyncio.create_task(self._take_commands(requests))
        commands.add_done_callback(lambda _: self._wakened.wake())
        self._engine.told_of_draining.add(self._wakened.wake)
        with Writer(self._context, pb.StreamGenerateResponse, self._settings.patience) as writer:
            try:
                while not ((commands.done() or self._engine.draining.is_set()) and not self._readers and not self._own_events):
                    await self._wakened.wait()
                    if events := await self._collect():
                        self._has_headers = True
                        await writer.write(events)
                    elif self._headers_are_due and not self._has_headers:
                        self._has_headers = True
                        await self._context.send_initial_metadata(())
                if commands.done():
                    commands.result()
            finally:
                why = writer.stalled or _why_gone(self._context)
                for reader in self._readers.values():
                    reader.close(why)
                self._readers.clear()  # who would wake this session, which holds them
                self._ready.clear()
                self._engine.told_of_draining.discard(self._wakened.wake)
                if self._headers_timer is not None:
                    self._headers_timer.cancel()
                if commands.cancel():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([commands])
        await self._end(cut=not commands.done() or commands.cancelled())

    def _send_headers_after(self, *seconds: float) -> None:
        """By themselves, after the first of these times, or, where the caller has sent something by then, the next."""
        self._headers_timer = asyncio.get_running_loop().call_later(seconds[0], self._look_at_headers, seconds[1:])

    def _look_at_headers(self, later: tuple[float, ...]) -> None:
        self._headers_timer = None
        if self._was_heard and later:
            self._send_headers_after(*later)
        else:
            self._headers_are_due = True
            self._wakened.wake()

    async def _end(self, *, cut: bool) -> None:
        """The status of the stream: that of its one generation; OK with several; UNAVAILABLE where we cut it short."""
        if len(self._seen) == 1 and isinstance(self._last_outcome, Failed):
            await abort(self._context, self._last_outcome.error, delivered_chunks=self._delivered_chunks)
        if cut and not (len(self._seen) == 1 and self._last_outcome is not None):
            raise refusals.shutting_down()

    async def _collect(self) -> list[Any]:
        events, self._own_events = self._own_events, []
        self._own_events_are_out.wake()
        ready, self._ready = self._ready, {}
        for request_id, reader in ready.items():
            events += await self._service.encode(reader)
            if reader.at_end and self._readers.get(request_id) is reader:
                self._last_outcome, self._delivered_chunks = reader.generation.outcome, reader.generation.chunk_count
                del self._readers[request_id]
                self._share_room()
                reader.close()
        return events

    async def _take_commands(self, requests: AsyncIterator[pb.StreamGenerateRequest]) -> None:
        async for command in requests:
            self._was_heard = True
            match command.WhichOneof("command"):
                case "generate":
                    await self._generate(command.generate)
                case "resume":
                    await self._resume(command.resume.request_id, command.resume.next_index)
                case "cancel":
                    self._cancel(command.cancel.request_id)
                case _:
                    self._fail("", Refusal(ErrorCode.INVALID_REQUEST, "a command must be one of generate, resume and cancel").fault)
            while len(self._own_events) >= _MAX_OWN_EVENTS:
                # A caller that sends and does not read is not listened to either.
                await self._own_events_are_out.wait()

    async def _generate(self, message: request_pb2.GenerateRequest) -> None:
        request_id = message.request_id
        try:
            if len(self._readers) >= self._settings.max_in_flight:
                raise refusals.too_many_in_flight(self._settings.max_in_flight, "on this stream")
            generation = await self._service.start(message, self._context, stream=True, traceparent=self._traceparent)
            if generation.request_id not in self._readers:
                self._read(generation, 0)
        except HeadraceError as error:
            # Under the id that the caller knows it by, also where that is none and the record has another.
            self._fail(request_id or error.request_id, error.fault, recorded=error.request_id)

    async def _resume(self, request_id: str, next_index: int) -> None:
        try:
            _check_index(next_index)
            generation = await self._engine.find(checked_uuid(request_id, "resume.request_id"))
            if (before := self._readers.pop(generation.request_id, None)) is not None:
                generation.detach(before)
            self._read(generation, next_index)
        except HeadraceError as error:
            self._fail(request_id, error.fault)

    def _cancel(self, request_id: str) -> None:
        if (generation := self._engine.running(request_id.lower())) is None:
            self._fail(request_id, refusals.not_found(request_id).fault, counts=False)
        else:
            generation.stop(refusals.cancelled("cancelled on request"))

    def _read(self, generation: Generation, next_index: int) -> None:
        request_id = generation.request_id
        reader = generation.attach(next_index, partial(self._wake, request_id))
        generation.room = self._room
        self._seen.add(request_id)
        self._readers[request_id] = reader
        self._share_room()
        self._wake(request_id)

    def _share_room(self) -> None:
        """The caller of many generations is no faster: what may wait for it is the same in all."""
        self._room.size = self._settings.max_unread // max(1, len(self._readers))

    def _wake(self, request_id: str) -> None:
        if (reader := self._readers.get(request_id)) is not None:
            self._ready[request_id] = reader
            self._wakened.wake()

    def _fail(self, request_id: str, fault: Fault, *, recorded: str = "", counts: bool = True) -> None:
        """Answer a command that could not be carried out; `counts`: it stands for a generation, which is on record as `recorded`."""
        event = Failed(provider_error(fault, request_id=recorded or request_id))
        if counts:
            self._seen.add(request_id)
            self._last_outcome, self._delivered_chunks = event, None
        self._own_events.append(encode_event(request_id, event))
        self._wakened.wake()


# ---------------------------------------------------------------- small parts


def _check_index(next_index: int) -> None:
    if next_index < 0:
        raise Refusal(ErrorCode.INVALID_REQUEST, "next_index must not be negative", Subreason.OUT_OF_RANGE)


def _why_gone(context: Context) -> Fault:
    """Why a caller that has not read to the end left: its deadline, or its own wish."""
    left = context.time_remaining()
    return refusals.out_of_time() if left is not None and left <= 0.005 else refusals.cancelled("the caller went away")


def traceparent_of(context: Context) -> str | None:
    """The caller's W3C trace context, if it sent one."""
    metadata: Iterable[tuple[str, Any]] = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == "traceparent"), None)


def _hello(traceparent: str | None, request_id: str = "") -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in (("traceparent", traceparent), ("x-request-id", request_id)) if value)


async def _say_hello(context: Context, generation: Generation) -> None:
    await context.send_initial_metadata(_hello(generation.traceparent, generation.request_id))
