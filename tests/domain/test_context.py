"""What a request carries along, from its creation to its end and past it; single operations stand in test_machine.py."""

import dataclasses

import pytest

from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.machine import Context, Metrics, Stream, advance

START = 1_800_000_000_000


def fault(**fields: bool) -> Fault:
    return Fault(code=ErrorCode.SERVER_ERROR, message="oops", **fields)


def started(**fields: str) -> Context:
    return advance(Context(request_id="r", **fields), Event.INITIATE_REQUEST, at=START)[0]


def test_context_is_idle_with_its_defaults_when_it_is_created() -> None:
    context = Context(request_id="r", conversation_id="c", user_id="u", tags=("a",))
    assert (context.request_id, context.conversation_id, context.user_id, context.tags) == ("r", "c", "u", ("a",))
    assert (context.state, context.last_event, context.last_error, context.history) == (State.IDLE, None, None, ())
    assert (context.provider, context.model, context.fallback_provider) == ("", "", "")
    assert (context.attempt, context.max_attempts) == (0, 3)
    assert (context.metrics, context.stream) == (Metrics(), Stream())
    assert not context.is_terminal


def test_context_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Context(request_id="r").state = State.FAILED  # type: ignore[misc]


@pytest.mark.parametrize(("last_error", "falls_back"), [(None, False), (fault(fallback=False), False), (fault(fallback=True), True)])
def test_request_should_fall_back_when_another_provider_may_do_better(last_error: Fault | None, falls_back: bool) -> None:
    assert Context(request_id="r", last_error=last_error).should_fall_back is falls_back


def test_target_is_aimed_at_without_a_fallback() -> None:
    context = Context(request_id="r").with_target("claude", "m")
    assert (context.provider, context.model, context.fallback_provider) == ("claude", "m", "")


def test_context_tells_the_whole_story_when_the_request_is_complete() -> None:
    context = started().with_target("claude", "m").with_attempt()
    context, _ = advance(context, Event.VALIDATION_PASSED, at=START + 10)
    context, _ = advance(context, Event.RECEIVE_STREAM_CHUNK, at=START + 30)
    context = context.with_chunk(START + 30).with_tokens(12)
    context, _ = advance(context, Event.STREAM_COMPLETE, at=START + 50)
    assert context.is_terminal
    assert context.last_event is Event.STREAM_COMPLETE
    assert context.metrics == Metrics(start_time=START, end_time=START + 50, first_token_latency=30, total_duration=50, token_count=12)
    assert [(step.to_state, step.time - START, step.attempt, step.provider) for step in context.history] == [
        (State.VALIDATING, 0, 0, ""),
        (State.REQUESTING, 10, 1, "claude"),
        (State.STREAMING, 30, 1, "claude"),
        (State.COMPLETED, 50, 1, "claude"),
    ]


@pytest.mark.parametrize("last", [Event.VALIDATION_FAILED, Event.REQUEST_FAILED])
def test_nothing_but_the_id_is_left_when_an_ended_request_is_reset(last: Event) -> None:
    ended, _ = advance(started(user_id="u").with_tag("t").with_error(fault()), last, at=START + 5)
    again, transition = advance(ended, Event.RESET, at=START + 9)
    assert again == Context(request_id="r", last_event=Event.RESET)
    assert transition is None
