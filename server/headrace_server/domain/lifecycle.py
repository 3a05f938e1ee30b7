"""The words of the lifecycle: states, events, and the transition that rows, spans and callers all show."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a request stands."""

    IDLE = "idle"
    VALIDATING = "validating"
    REQUESTING = "requesting"
    STREAMING = "streaming"
    RATE_LIMITED = "rate_limited"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"


class Event(StrEnum):
    """What moves a request."""

    INITIATE_REQUEST = "initiate_request"
    VALIDATION_PASSED = "validation_passed"
    VALIDATION_FAILED = "validation_failed"
    RATE_LIMIT_HIT = "rate_limit_hit"
    FALLBACK_TO_PROVIDER = "fallback_to_provider"
    RECEIVE_STREAM_CHUNK = "receive_stream_chunk"
    RECEIVE_RESPONSE = "receive_response"
    STREAM_COMPLETE = "stream_complete"
    RETRY_REQUEST = "retry_request"
    SEND_REQUEST = "send_request"
    REQUEST_FAILED = "request_failed"
    RESET = "reset"


TERMINAL: frozenset[State] = frozenset({State.COMPLETED, State.FAILED})


def is_terminal_state(state: State) -> bool:
    """Whether a request in this state has ended."""
    return state in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step from state to state. This very value is the row's history, the span and the wire event."""

    from_state: State
    to_state: State
    event: Event
    time: int
    """When, in milliseconds since the epoch."""
    attempt: int = 0
    """Provider calls begun so far, over all providers."""
    provider: str = ""
    model: str = ""
    reason: str = ""
    wait: int | None = None
    """How long the request is going to wait in `to_state`, in milliseconds."""
