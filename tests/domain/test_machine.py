from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.lifecycle import TERMINAL, Event, State, Transition, is_terminal_state
from headrace_server.domain.machine import TRANSITIONS, Context, InvalidTransition, advance, advance_all, can_apply, describe

ID = "01890a5d-ac96-774b-bcce-b302099a8057"

# The table of the design, written a second time: state, events, state.
TABLE = """
idle         initiate_request                    validating
validating   validation_passed                   requesting
validating   validation_failed                   failed
validating   rate_limit_hit                      rate_limited
validating   fallback_to_provider                validating
requesting   receive_stream_chunk                streaming
requesting   receive_response,stream_complete    completed
requesting   rate_limit_hit                      rate_limited
requesting   retry_request                       retrying
requesting   fallback_to_provider                validating
streaming    receive_stream_chunk                streaming
streaming    stream_complete                     completed
streaming    fallback_to_provider                validating
rate_limited retry_request                       retrying
rate_limited fallback_to_provider                validating
retrying     send_request                        requesting
retrying     fallback_to_provider                validating
completed    reset                               idle
failed       reset                               idle
"""


def expected() -> dict[tuple[State, Event], State]:
    table = {}
    for line in TABLE.strip().splitlines():
        state, events, to_state = line.split()
        table |= {(State(state), Event(event)): State(to_state) for event in events.split(",")}
    table |= {(state, Event.REQUEST_FAILED): State.FAILED for state in State if state not in TERMINAL}
    return table


EXPECTED = expected()
PAIRS = [(state, event) for state in State for event in Event]


def in_state(state: State, **fields: Any) -> Context:
    return Context(request_id=ID, state=state, provider="p", model="m", attempt=2, **fields)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_each_event_leads_where_the_table_says_or_raises_and_changes_nothing(state: State, event: Event) -> None:
    before = in_state(state)
    copy = replace(before)
    assert can_apply(state, event) == ((state, event) in EXPECTED)
    if (state, event) in EXPECTED:
        after, _ = advance(before, event, at=1)
        assert after.state is EXPECTED[state, event]
        assert after.last_event is event
    else:
        with pytest.raises(InvalidTransition) as caught:
            advance(before, event, at=1)
        assert (caught.value.state, caught.value.event) == (state, event)
        assert str(state) in str(caught.value)
        assert str(event) in str(caught.value)
    assert before == copy


def test_every_state_stands_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


@pytest.mark.parametrize("state", State)
def test_only_completed_and_failed_are_terminal(state: State) -> None:
    assert is_terminal_state(state) == in_state(state).is_terminal == (state in (State.COMPLETED, State.FAILED))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in EXPECTED])
def test_a_step_is_recorded_except_further_chunks_and_resets(state: State, event: Event) -> None:
    after, transition = advance(in_state(state), event, at=77, reason="why", wait=5)
    if event is Event.RESET or (state is State.STREAMING and event is Event.RECEIVE_STREAM_CHUNK):
        assert transition is None
        assert after.history == ()
    else:
        assert transition == Transition(
            from_state=state, to_state=after.state, event=event, time=77, attempt=2, provider="p", model="m", reason="why", wait=5
        )
        assert after.history == (transition,)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_no_sequence_of_events_leaves_a_terminal_state_but_by_reset(events: list[Event]) -> None:
    context = Context(request_id=ID)
    for at, event in enumerate(events):
        before = context
        try:
            context, _ = advance(context, event, at=at)
        except InvalidTransition:
            assert context == before
            continue
        if before.is_terminal:
            assert event is Event.RESET
            assert context == Context(request_id=ID, last_event=Event.RESET)
        assert [t.to_state for t in context.history[:-1]] == [t.from_state for t in context.history[1:]]
        assert not context.history or context.history[-1].to_state is context.state


HAPPY = [
    (Event.INITIATE_REQUEST, 1_000),
    (Event.VALIDATION_PASSED, 1_010),
    (Event.RECEIVE_STREAM_CHUNK, 1_300),
    (Event.STREAM_COMPLETE, 2_000),
]


def test_a_batch_of_events_goes_to_its_end_when_all_are_allowed() -> None:
    context, error = advance_all(Context(request_id=ID), HAPPY)
    assert error is None
    assert context.state is State.COMPLETED
    assert (context.metrics.start_time, context.metrics.end_time, context.metrics.total_duration) == (1_000, 2_000, 1_000)
    assert [t.time for t in context.history] == [1_000, 1_010, 1_300, 2_000]


def test_a_batch_of_events_stops_at_the_first_that_is_not_allowed() -> None:
    context, error = advance_all(Context(request_id=ID), [HAPPY[0], HAPPY[3], HAPPY[1]])
    assert context.state is State.VALIDATING
    assert error is not None
    assert (error.state, error.event) == (State.VALIDATING, Event.STREAM_COMPLETE)


def test_a_clock_that_goes_back_gives_no_negative_duration() -> None:
    context, _ = advance_all(Context(request_id=ID), [(Event.INITIATE_REQUEST, 5_000), (Event.REQUEST_FAILED, 1_000)])
    assert context.metrics.total_duration == 0
    assert context.duration(0) == 0
    assert in_state(State.STREAMING).with_chunk(1).metrics.first_token_latency is None


def test_the_duration_runs_until_the_end() -> None:
    context, _ = advance_all(Context(request_id=ID), HAPPY[:2])
    assert context.duration(1_500) == 500
    context, _ = advance_all(context, HAPPY[2:])
    assert context.duration(9_999) == 1_000
    assert Context(request_id=ID).duration(5) == 0


def test_the_first_chunk_fixes_the_latency_and_later_ones_only_count() -> None:
    context, _ = advance_all(Context(request_id=ID), HAPPY[:2])
    context = context.with_chunk(1_300).with_chunk(1_800, count=4)
    assert (context.stream.chunks_received, context.stream.start_time, context.metrics.first_token_latency) == (5, 1_300, 300)


def test_a_context_tells_whether_its_last_error_may_be_mended() -> None:
    context = in_state(State.REQUESTING)
    assert not context.is_retryable
    assert not context.should_fall_back
    context = context.with_error(Fault(code=ErrorCode.SERVER_ERROR, message="", retryable=True, fallback=False))
    assert context.is_retryable
    assert not context.should_fall_back


def test_a_context_is_changed_by_making_another() -> None:
    context = Context(request_id=ID)
    changed = context.with_tag("a").with_tag("a").with_tag("b").with_fallback("q", "n").with_attempt().with_tokens(9)
    assert (changed.tags, changed.provider, changed.fallback_provider, changed.model) == (("a", "b"), "q", "q", "n")
    assert (changed.attempt, changed.metrics.token_count) == (1, 9)
    assert context == Context(request_id=ID)


CONTEXT: TypeAdapter[Context] = TypeAdapter(Context)


def test_a_context_survives_json() -> None:
    context, _ = advance_all(Context(request_id=ID, tags=("a",)), HAPPY)
    context = context.with_error(Fault(code=ErrorCode.TIMEOUT, message="late"))
    assert CONTEXT.validate_json(CONTEXT.dump_json(context)) == context


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"request_id": 5},
        {"request_id": ID, "state": "dreaming"},
        {"request_id": ID, "attempt": "x"},
        {"request_id": ID, "history": [{}]},
    ],
)
def test_a_context_with_wrong_fields_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONTEXT.validate_python(wrong)


def test_a_transition_is_told_in_one_line() -> None:
    full = Transition(
        from_state=State.REQUESTING,
        to_state=State.RETRYING,
        event=Event.RETRY_REQUEST,
        time=0,
        provider="p",
        model="m",
        reason="overloaded",
        wait=1_500,
    )
    assert describe(full) == "requesting → retrying [retry_request] p/m, waiting 1.5 s (overloaded)"
    bare = Transition(from_state=State.IDLE, to_state=State.VALIDATING, event=Event.INITIATE_REQUEST, time=0)
    assert describe(bare) == "idle → validating [initiate_request]"
