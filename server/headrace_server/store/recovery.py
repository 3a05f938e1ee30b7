"""How the request of a dead process ends."""

from collections.abc import Sequence

from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.identity import new_id
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.machine import Context, advance
from headrace_server.domain.ports import Salvage
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.result import Attempt, ProviderError
from headrace_server.domain.usage import Usage

INTERRUPTED = "the process that ran the request ended before the request did"


def is_refused(row: LogRow) -> bool:
    """Whether validation refused the request: the next one with its id takes over the row."""
    return row.state is State.FAILED and row.error_code is ErrorCode.INVALID_REQUEST and not row.attempts


def interrupted(row: LogRow, now: int, kept: Sequence[bytes], salvage: Salvage) -> LogRow:
    """The row as it ends: failed, with code interrupted, each attempt that was under way ended as uncertain, and what was kept of it."""
    partial = salvage(row, kept) if row.attempts else None
    context = Context(request_id=row.request_id, state=row.state, attempt=len(row.attempts), provider=row.provider, model=row.model)
    _, transition = advance(context, Event.REQUEST_FAILED, at=now, reason=INTERRUPTED)
    assert transition is not None
    error = ProviderError(request_id=row.request_id, message=INTERRUPTED, code=ErrorCode.INTERRUPTED, provider=row.provider, retryable=True)
    return row.model_copy(
        update={
            "state": State.FAILED,
            "error": error,
            "error_message": error.message,
            "error_code": error.code,
            "response_data": partial,
            "end_time": now,
            "duration": max(0, now - row.start_time),
            "attempts": tuple(_end(attempt, error, now, None if partial is None else partial.usage) for attempt in row.attempts),
            "transitions": (*row.transitions, transition),
            "updated_at": now,
        }
    )


def metrics_of(row: LogRow) -> list[MetricsRow]:
    """What each provider did for an interrupted request, as far as its row tells."""
    by_provider: dict[str, list[Attempt]] = {}
    for attempt in row.attempts:
        by_provider.setdefault(attempt.provider, []).append(attempt)
    lines = []
    for number, (provider, attempts) in enumerate(by_provider.items()):
        last = attempts[-1]
        usage = last.usage or Usage()
        lines.append(
            MetricsRow(
                id=new_id(row.updated_at),
                request_id=row.request_id,
                provider=provider,
                model=last.model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                usage_source=usage.source,
                total_duration=max(0, last.start_time + (last.duration or 0) - attempts[0].start_time),
                retry_count=len(attempts) - 1,
                is_fallback=number > 0,
                fallback_provider=None if provider == row.provider else row.provider,
                success=False,
                created_at=row.created_at,
            )
        )
    return lines


def _end(attempt: Attempt, error: ProviderError, now: int, usage: Usage | None) -> Attempt:
    if attempt.duration is not None:
        return attempt
    return attempt.model_copy(
        update={
            "state": State.FAILED,
            "error": error.model_copy(update={"provider": attempt.provider}),
            "usage": usage,
            "duration": max(0, now - attempt.start_time),
            "replay_safety": ReplaySafety.UNCERTAIN,
        }
    )
