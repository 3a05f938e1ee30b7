"""The state machine of a request. Two rules hold here:

1. Every transition there is stands in `TRANSITIONS`; no other code decides which state follows which.
2. There is no I/O, no clock and no randomness; time comes in as an argument. An illegal event raises and changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from headrace_server.domain.base import Count, Millis
from headrace_server.domain.errors import Fault
from headrace_server.domain.lifecycle import TERMINAL, Event, State, Transition

TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.IDLE: {
            Event.INITIATE_REQUEST: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.VALIDATING: {
            Event.VALIDATION_PASSED: State.REQUESTING,
            Event.VALIDATION_FAILED: State.FAILED,
            Event.RATE_LIMIT_HIT: State.RATE_LIMITED,
            Event.FALLBACK_TO_PROVIDER: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.REQUESTING: {
            Event.RECEIVE_STREAM_CHUNK: State.STREAMING,
            Event.RECEIVE_RESPONSE: State.COMPLETED,
            Event.STREAM_COMPLETE: State.COMPLETED,
            Event.RATE_LIMIT_HIT: State.RATE_LIMITED,
            Event.RETRY_REQUEST: State.RETRYING,
            Event.FALLBACK_TO_PROVIDER: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.STREAMING: {
            Event.RECEIVE_STREAM_CHUNK: State.STREAMING,
            Event.STREAM_COMPLETE: State.COMPLETED,
            Event.FALLBACK_TO_PROVIDER: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.RATE_LIMITED: {
            Event.RETRY_REQUEST: State.RETRYING,
            Event.FALLBACK_TO_PROVIDER: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.RETRYING: {
            Event.SEND_REQUEST: State.REQUESTING,
            Event.FALLBACK_TO_PROVIDER: State.VALIDATING,
            Event.REQUEST_FAILED: State.FAILED,
        },
        State.COMPLETED: {Event.RESET: State.IDLE},
        State.FAILED: {Event.RESET: State.IDLE},
    }
)


class InvalidTransition(Exception):
    """An event that the state does not allow."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"the event {event} is not allowed in the state {state}")
        self.state = state
        self.event = event


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What was measured so far. Times in milliseconds since the epoch, durations in milliseconds."""

    start_time: Millis | None = None
    end_time: Millis | None = None
    first_token_latency: Millis | None = None
    total_duration: Millis | None = None
    token_count: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How far the answer has come."""

    chunks_received: Count = 0
    start_time: Millis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a request carries along. A value: each change makes a new one."""

    request_id: str
    state: State = State.IDLE
    conversation_id: str | None = None
    user_id: str = ""
    tags: tuple[str, ...] = ()
    provider: str = ""
    model: str = ""
    fallback_provider: str = ""
    attempt: Count = 0
    """Provider calls begun so far, over all providers."""
    max_attempts: Count = 3
    """Most calls to one provider."""
    last_error: Fault | None = None
    last_event: Event | None = None
    metrics: Metrics = Metrics()
    stream: Stream = Stream()
    history: tuple[Transition, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """Whether the request has ended."""
        return self.state in TERMINAL

    @property
    def is_retryable(self) -> bool:
        """Whether the last error allows another attempt at the same provider."""
        return self.last_error is not None and self.last_error.retryable

    @property
    def should_fall_back(self) -> bool:
        """Whether the last error may be mended by another provider."""
        return self.last_error is not None and self.last_error.fallback

    def duration(self, at: int) -> int:
        """Milliseconds from the start to the end, or to `at` while the request runs."""
        if self.metrics.start_time is None:
            return 0
        return max(0, (at if self.metrics.end_time is None else self.metrics.end_time) - self.metrics.start_time)

    def with_tag(self, tag: str) -> "Context":
        """The same with one more tag; each tag stands once."""
        return self if tag in self.tags else replace(self, tags=(*self.tags, tag))

    def with_target(self, provider: str, model: str) -> "Context":
        """The same, aimed at a provider and model."""
        return replace(self, provider=provider, model=model)

    def with_fallback(self, provider: str, model: str) -> "Context":
        """The same, aimed at a provider that stands in for the one before."""
        return replace(self, provider=provider, model=model, fallback_provider=provider)

    def with_error(self, fault: Fault) -> "Context":
        """The same, with what went wrong last."""
        return replace(self, last_error=fault)

    def with_attempt(self) -> "Context":
        """The same, with one more call begun."""
        return replace(self, attempt=self.attempt + 1)

    def with_chunk(self, at: int, count: int = 1) -> "Context":
        """The same, with `count` more chunks; the first one fixes the latency of the first token."""
        stream = Stream(chunks_received=self.stream.chunks_received + count, start_time=self.stream.start_time or at)
        metrics = self.metrics
        if metrics.first_token_latency is None and metrics.start_time is not None:
            metrics = replace(metrics, first_token_latency=max(0, at - metrics.start_time))
        return replace(self, stream=stream, metrics=metrics)

    def with_tokens(self, count: int) -> "Context":
        """The same, with the answer's count of tokens."""
        return replace(self, metrics=replace(self.metrics, token_count=count))


def can_apply(state: State, event: Event) -> bool:
    """Whether the state allows the event."""
    return event in TRANSITIONS[state]


def advance(context: Context, event: Event, *, at: int, reason: str = "", wait: int | None = None) -> tuple[Context, Transition | None]:
    """Apply one event: the context that follows, and the transition to record.

    There is no transition for a further chunk of a stream, nor for a reset. Raises InvalidTransition.
    """
    to_state = TRANSITIONS[context.state].get(event)
    if to_state is None:
        raise InvalidTransition(context.state, event)
    if event is Event.RESET:
        return Context(request_id=context.request_id, last_event=event), None
    if context.state is to_state is State.STREAMING:
        return replace(context, last_event=event), None
    transition = Transition(
        from_state=context.state,
        to_state=to_state,
        event=event,
        time=at,
        attempt=context.attempt,
        provider=context.provider,
        model=context.model,
        reason=reason,
        wait=wait,
    )
    metrics = context.metrics
    if event is Event.INITIATE_REQUEST:
        metrics = replace(metrics, start_time=at)
    if to_state in TERMINAL:
        metrics = replace(metrics, end_time=at, total_duration=max(0, at - (at if metrics.start_time is None else metrics.start_time)))
    return replace(context, state=to_state, last_event=event, metrics=metrics, history=(*context.history, transition)), transition


def advance_all(context: Context, events: Iterable[tuple[Event, int]]) -> tuple[Context, InvalidTransition | None]:
    """Apply events with their times in order, up to the first that is not allowed: how far it went, and why it stopped."""
    for event, at in events:
        try:
            context, _ = advance(context, event, at=at)
        except InvalidTransition as error:
            return context, error
    return context, None


def describe(transition: Transition) -> str:
    """One line of text for people."""
    where = f" {transition.provider}/{transition.model}" if transition.provider else ""
    why = f" ({transition.reason})" if transition.reason else ""
    pause = f", waiting {transition.wait / 1000:.3g} s" if transition.wait is not None else ""
    return f"{transition.from_state} → {transition.to_state} [{transition.event}]{where}{pause}{why}"
