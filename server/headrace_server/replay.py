"""The events of an ended request, told again from its row."""

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.events import (
    Completed,
    Delta,
    Failed,
    GenerationEvent,
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
)
from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.message import ContentPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.record import LogRow
from headrace_server.domain.result import ProviderError


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
    return Failed(error.model_copy(update={"attempts": row.attempts, "partial": row.response_data}))


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
