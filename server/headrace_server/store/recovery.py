"""How the request of a dead process ends."""

from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.machine import Context, advance
from headrace_server.domain.record import LogRow
from headrace_server.domain.result import Attempt, ProviderError

INTERRUPTED = "the process that ran the request ended before the request did"


def is_refused(row: LogRow) -> bool:
    """Whether validation refused the request: the next one with its id takes over the row."""
    return row.state is State.FAILED and row.error_code is ErrorCode.INVALID_REQUEST and not row.attempts


def interrupted(row: LogRow, now: int) -> LogRow:
    """The row as it ends: failed, with code interrupted, and each attempt that was under way ended as uncertain."""
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
            "end_time": now,
            "duration": max(0, now - row.start_time),
            "attempts": tuple(_end(attempt, error, now) for attempt in row.attempts),
            "transitions": (*row.transitions, transition),
            "updated_at": now,
        }
    )


def _end(attempt: Attempt, error: ProviderError, now: int) -> Attempt:
    if attempt.duration is not None:
        return attempt
    return attempt.model_copy(
        update={
            "state": State.FAILED,
            "error": error.model_copy(update={"provider": attempt.provider}),
            "duration": max(0, now - attempt.start_time),
            "replay_safety": ReplaySafety.UNCERTAIN,
        }
    )
