"""Events of generations between protobuf and the domain. Writing a chunk is the one conversion that runs for every piece of an answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from headrace.v1 import event_pb2 as pb
from headrace.v1 import generation_service_pb2, lifecycle_pb2, message_pb2
from headrace_server.domain.events import (
    Completed,
    Delta,
    Discontinuity,
    Failed,
    GenerationEvent,
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
)
from headrace_server.domain.lifecycle import Transition
from headrace_server.domain.violations import Loc, validate
from headrace_server.rpc.codec_result import decode_error, decode_result, encode_error, encode_result
from headrace_server.rpc.codec_values import (
    EVENT,
    FINISH_REASON,
    STATE,
    Wrong,
    dict_of_struct,
    int32,
    maybe_duration,
    millis_of_duration,
    millis_of_timestamp,
    struct_of_dict,
    timestamp_of,
    utf8,
)

# ---------------------------------------------------------------- to protobuf


def encode_event(request_id: str, event: GenerationEvent, *, sent: int | None = None) -> pb.GenerationEvent:
    """An event in protobuf. `sent` is given for requests with `timing`: when it goes out, in milliseconds since the epoch."""
    target = pb.GenerationEvent()
    write_event(target, request_id, event, sent=sent)
    return target


def write_event(target: pb.GenerationEvent, request_id: str, event: GenerationEvent, *, sent: int | None = None) -> None:
    """The same into an empty message, such as `response.events.add()`: this spares a copy."""
    target.request_id = request_id
    if type(event) is StreamChunk:
        chunk = target.chunk
        try:
            _write_chunk(chunk, event)
        except UnicodeEncodeError:
            chunk.Clear()
            _write_chunk(chunk, replace(event, delta=_storable(event.delta)))
        if sent is not None:
            if event.received is not None:
                chunk.timing.received.CopyFrom(timestamp_of(event.received))
            chunk.timing.sent.CopyFrom(timestamp_of(sent))
        return
    match event:
        case Transition():
            target.transition.CopyFrom(encode_transition(event))
        case Discontinuity():
            target.discontinuity.CopyFrom(
                pb.Discontinuity(
                    attempt=int32(event.attempt),
                    provider=event.provider,
                    model=event.model,
                    discard_from_index=int32(event.discard_from_index),
                    reason=utf8(event.reason),
                )
            )
        case Completed():
            target.completed.CopyFrom(encode_result(event.result))
        case Failed():
            target.failed.CopyFrom(encode_error(event.error))


def _write_chunk(chunk: pb.StreamChunk, event: StreamChunk) -> None:
    chunk.index = event.index
    chunk.attempt = event.attempt
    chunk.merged = event.merged
    if event.finish_reason is not None:
        chunk.finish_reason = FINISH_REASON.numbers[event.finish_reason]
    delta = event.delta
    match delta:
        case TextDelta():
            chunk.text = delta.text
        case ToolCallDelta():
            chunk.tool_call.CopyFrom(
                pb.ToolCallDelta(
                    position=delta.position,
                    id=delta.id,
                    name=delta.name,
                    arguments_delta=delta.arguments_delta,
                    signature=delta.signature,
                )
            )
        case ReasoningDelta():
            chunk.reasoning.CopyFrom(
                message_pb2.Reasoning(text=delta.text, signature=delta.signature, redacted_data=delta.redacted_data, id=delta.id)
            )
        case RefusalDelta():
            chunk.refusal = delta.refusal
        case ProviderDataDelta():
            chunk.provider_data.CopyFrom(struct_of_dict(delta.provider_data))
        case None:
            pass


def _storable(delta: Delta | None) -> Delta | None:
    match delta:
        case TextDelta():
            return TextDelta(utf8(delta.text))
        case RefusalDelta():
            return RefusalDelta(utf8(delta.refusal))
        case ReasoningDelta():
            return ReasoningDelta(
                text=utf8(delta.text), signature=utf8(delta.signature), redacted_data=utf8(delta.redacted_data), id=utf8(delta.id)
            )
        case ToolCallDelta():
            return ToolCallDelta(
                position=delta.position,
                id=utf8(delta.id),
                name=utf8(delta.name),
                arguments_delta=utf8(delta.arguments_delta),
                signature=utf8(delta.signature),
            )
        case _:
            return delta


def encode_transition(transition: Transition) -> lifecycle_pb2.StateTransition:
    """A transition in protobuf."""
    return lifecycle_pb2.StateTransition(
        from_state=STATE.numbers[transition.from_state],
        to_state=STATE.numbers[transition.to_state],
        event=EVENT.numbers[transition.event],
        time=timestamp_of(transition.time),
        attempt=int32(transition.attempt),
        provider=transition.provider,
        model=transition.model,
        reason=utf8(transition.reason),
        wait=maybe_duration(transition.wait),
    )


class StoredEvents:
    """Events as the store keeps them: a StreamGenerateResponse. Implements `ports.EventCodec`."""

    @staticmethod
    def encode(request_id: str, events: Sequence[GenerationEvent]) -> bytes:
        """Events as bytes; when they came is part of them, when they went is not."""
        response = generation_service_pb2.StreamGenerateResponse()
        for event in events:
            target = response.events.add()
            write_event(target, request_id, event)
            if isinstance(event, StreamChunk) and event.received is not None:
                target.chunk.timing.received.CopyFrom(timestamp_of(event.received))
        return response.SerializeToString()

    @staticmethod
    def decode(payload: bytes) -> list[GenerationEvent]:
        """What `encode` made bytes of."""
        response = generation_service_pb2.StreamGenerateResponse.FromString(payload)
        return [event for message in response.events if (event := decode_event(message)) is not None]


# ---------------------------------------------------------------- from protobuf

_TRANSITION = TypeAdapter(Transition)
_CHUNK = TypeAdapter(StreamChunk)
_DISCONTINUITY = TypeAdapter(Discontinuity)


def decode_event(message: pb.GenerationEvent) -> GenerationEvent | None:
    """The domain event; None for an arm that is not known. Raises a Refusal that names every wrong field."""
    match message.WhichOneof("event"):
        case "transition":
            return decode_transition(message.transition)
        case "chunk":
            return decode_chunk(message.chunk)
        case "discontinuity":
            return _decode_discontinuity(message.discontinuity)
        case "completed":
            return Completed(decode_result(message.completed))
        case "failed":
            return Failed(decode_error(message.failed))
    return None


def decode_chunk(message: pb.StreamChunk) -> StreamChunk:
    """The domain chunk; `timing.sent` is not part of it. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    fields: dict[str, Any] = {
        "index": message.index,
        "attempt": message.attempt,
        "finish_reason": FINISH_REASON.member(message.finish_reason),
        "merged": message.merged,
        "delta": _decode_delta(message, wrong),
    }
    if message.HasField("timing") and message.timing.HasField("received"):
        fields["received"] = millis_of_timestamp(message.timing.received, ("timing", "received"), wrong)
    return validate(_CHUNK.validate_python, fields, wrong, "the chunk is not valid")


def _decode_delta(message: pb.StreamChunk, wrong: Wrong) -> Delta | None:
    match message.WhichOneof("delta"):
        case "text":
            return TextDelta(message.text)
        case "reasoning":
            part = message.reasoning
            return ReasoningDelta(text=part.text, signature=part.signature, redacted_data=part.redacted_data, id=part.id)
        case "tool_call":
            call = message.tool_call
            if call.position < 0:
                wrong.append((("tool_call", "position"), "must be at least 0"))
            return ToolCallDelta(
                position=max(0, call.position), id=call.id, name=call.name, arguments_delta=call.arguments_delta, signature=call.signature
            )
        case "refusal":
            return RefusalDelta(message.refusal)
        case "provider_data":
            at: Loc = ("provider_data",)
            return ProviderDataDelta(dict_of_struct(message.provider_data, at, wrong))
    return None


def decode_transition(message: lifecycle_pb2.StateTransition) -> Transition:
    """The domain transition. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    fields: dict[str, Any] = {
        **STATE.required("from_state", message.from_state),
        **STATE.required("to_state", message.to_state),
        **EVENT.required("event", message.event),
        "attempt": message.attempt,
        "provider": message.provider,
        "model": message.model,
        "reason": message.reason,
    }
    if message.HasField("time"):
        fields["time"] = millis_of_timestamp(message.time, ("time",), wrong) or 0
    if message.HasField("wait"):
        fields["wait"] = millis_of_duration(message.wait, ("wait",), wrong)
    return validate(_TRANSITION.validate_python, fields, wrong, "the transition is not valid")


def _decode_discontinuity(message: pb.Discontinuity) -> Discontinuity:
    fields = {
        "attempt": message.attempt,
        "provider": message.provider,
        "model": message.model,
        "discard_from_index": message.discard_from_index,
        "reason": message.reason,
    }
    return validate(_DISCONTINUITY.validate_python, fields, (), "the discontinuity is not valid")
