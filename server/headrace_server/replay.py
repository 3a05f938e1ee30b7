"""The events of an ended request, told again from its row."""

from collections.abc import Iterable

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode
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
from headrace_server.domain.lifecycle import TERMINAL, State, Transition
from headrace_server.domain.message import ContentPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.ports import EventCodec, Journal
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason, GenerationResult, ProviderError, told
from headrace_server.domain.usage import Usage, UsageSource, estimate_tokens
from headrace_server.generation import Generation
from headrace_server.keeper import kept_events
from headrace_server.ledger import input_tokens


async def tell_again(row: LogRow, generation: Generation, journal: Journal, codec: EventCodec) -> None:
    """Fill an empty generation with the events of an ended request: those that were kept, or else what the row can tell."""
    events = await kept_events(journal, codec, row.request_id)
    if events and (row.state is State.FAILED or _is_whole(events)):
        told = [event for event in events if isinstance(event, Transition)]
        generation.lost_its_tail = row.error_code is ErrorCode.INTERRUPTED
        generation.publish([*events, *row.transitions[len(told) :], outcome_of(row)])
    else:
        generation.is_replay = True
        generation.publish(replay(row))


def _is_whole(events: list[GenerationEvent]) -> bool:
    """Whether the last chunk of an answer is there: the write that should have kept it may have been lost."""
    return next((event.finish_reason is not None for event in reversed(events) if isinstance(event, StreamChunk)), False)


def salvage(row: LogRow, events: Iterable[GenerationEvent]) -> GenerationResult:
    """What there is of the answer of a request that died with its process: its kept chunks, and an estimate of what they cost."""
    answer = Answer()
    for event in events:
        if isinstance(event, Discontinuity):
            answer = Answer()
        elif isinstance(event, StreamChunk) and event.delta is not None:
            answer.add(event.delta)
    spent = input_tokens(row.request_data) if isinstance(row.request_data, GenerateRequest) else 0
    said = estimate_tokens(answer.characters)
    return GenerationResult(
        content=answer.content(),
        finish_reason=FinishReason.ERROR,
        usage=Usage(input_tokens=spent, output_tokens=said, total_tokens=spent + said, source=UsageSource.ESTIMATED),
        provider=row.provider,
        model=row.model,
    )


def replay(row: LogRow) -> list[GenerationEvent]:
    """Its transitions, its answer in as many chunks as it has parts, its end."""
    chunks = _chunks(row)
    events: list[GenerationEvent] = []
    for transition in row.transitions:
        if transition.to_state in TERMINAL:
            events += chunks
        events.append(transition)
    return [*events, outcome_of(row)]


def outcome_of(row: LogRow) -> Completed | Failed:
    """The last event."""
    if row.state is State.COMPLETED and row.response_data is not None:
        return Completed(row.response_data)
    error = row.error or ProviderError(
        request_id=row.request_id,
        code=row.error_code or ErrorCode.UNKNOWN_ERROR,
        message=row.error_message or "",
        provider=row.provider,
    )
    return Failed(error.model_copy(update={"attempts": told(row.attempts), "partial": row.response_data}))


def _chunks(row: LogRow) -> list[StreamChunk]:
    result = row.response_data
    if result is None:
        return []
    chunks: list[StreamChunk] = []
    calls = 0
    for part in result.content:
        if (delta := _delta(part, calls)) is not None:
            chunks.append(StreamChunk(index=len(chunks), delta=delta, attempt=max(1, len(row.attempts))))
            calls += isinstance(delta, ToolCallDelta)
    if chunks and row.state is State.COMPLETED:
        chunks[-1].finish_reason = result.finish_reason
    return chunks


def _delta(part: ContentPart, position: int) -> Delta | None:
    match part:
        case TextPart():
            return TextDelta(part.text)
        case ReasoningPart():
            return ReasoningDelta(text=part.text, signature=part.signature, redacted_data=part.redacted_data, id=part.id)
        case ToolCallPart():
            return ToolCallDelta(
                position=position, id=part.id, name=part.name, arguments_delta=part.arguments_json, signature=part.signature
            )
        case RefusalPart():
            return RefusalDelta(part.refusal)
        case ProviderDataPart():
            return ProviderDataDelta(part.provider_data)
        case _:
            return None
