"""A request's spans: one for the request, one for each state, one for each call, with the ids that went out before."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags

from headrace_server.domain.lifecycle import TERMINAL, Event, State, Transition
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.telemetry.request import Telemetry

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-00"
MS = 1_000_000

KINDS = ["completed", "retried", "fell_back", "failed", "cancelled", "refused"]
STATES = {state.value for state in State}


def play(telemetry: Telemetry, row: LogRow, traceparent: str | None = CALLER) -> list[str]:
    """The request of the row, from start to end: the traceparents of its calls."""
    request = row.request_data if isinstance(row.request_data, GenerateRequest) else None
    trace = telemetry.start(request, traceparent)
    calls = [trace.attempt() for _ in row.attempts]
    trace.end(row)
    return calls


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_id(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent else None


def states(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.name in STATES]


def calls_of(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.CLIENT]


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


@pytest.mark.parametrize("kind", KINDS)
def test_spans_form_one_tree_under_the_caller(
    kind: str, telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    row = row_of(kind)
    play(telemetry, row)
    spans = exporter.get_finished_spans()
    root, children = spans[0], spans[1:]
    assert root.name == (f"generate {row.model}" if row.model else "generate")
    assert root.kind is SpanKind.SERVER
    assert {ids(span)[0] for span in spans} == {TRACE_ID}
    assert len({ids(span)[1] for span in spans}) == len(spans)
    assert parent_id(root) == "b7ad6b7169203331"
    assert {parent_id(span) for span in states(children)} == {ids(root)[1]}
    requesting = [ids(span)[1] for span in states(spans) if span.name == "requesting"]
    assert [parent_id(span) for span in calls_of(spans)] == requesting
    assert len(spans) == 1 + len(row.transitions) + len(row.attempts)


@pytest.mark.parametrize("kind", KINDS)
def test_times_in_states_add_up_to_the_duration(
    kind: str, telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    row = row_of(kind)
    play(telemetry, row)
    spans = exporter.get_finished_spans()
    assert row.end_time is not None
    assert row.duration is not None
    assert times(spans[0]) == (row.start_time * MS, row.end_time * MS)
    lasting = [times(span) for span in states(spans)]
    assert sum(end - start for start, end in lasting) == row.duration * MS
    assert all(before[1] == after[0] for before, after in itertools.pairwise(lasting))
    assert lasting[-1] == (row.end_time * MS, row.end_time * MS)
    assert [span.name for span in states(spans)] == [transition.to_state.value for transition in row.transitions]


def test_calls_have_the_ids_that_went_out_when_the_request_was_retried(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    sent = play(telemetry, row_of("retried"))
    first, second = calls_of(exporter.get_finished_spans())
    assert sent == [f"00-{TRACE_ID}-{ids(first)[1]}-01", f"00-{TRACE_ID}-{ids(second)[1]}-01"]
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is StatusCode.OK
    assert times(second)[0] - times(first)[1] == 400 * MS


def test_request_span_tells_what_was_asked_and_answered_when_completed(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    row = row_of("completed")
    play(telemetry, row)
    root = exporter.get_finished_spans()[0]
    assert root.status.status_code is StatusCode.OK
    assert root.resource.attributes["service.name"] == "headrace"
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.conversation.id": row.conversation_id,
        "gen_ai.request.model": "claude-x",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "claude-x-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.152,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "headrace.request_id": row.request_id,
        "headrace.state": "completed",
        "headrace.attempts": 1,
        "headrace.provider": "claude",
        "headrace.usage_source": "provider",
        "headrace.cost_micro_usd": 1234,
    }


def test_call_spans_tell_provider_usage_and_error_when_the_request_fell_back(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    play(telemetry, row_of("fell_back"))
    first, second = calls_of(exporter.get_finished_spans())
    assert (first.name, second.name) == ("chat claude-x", "chat gpt-x")
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["error.type"] == "network_error"
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert "gen_ai.response.finish_reasons" not in first.attributes
    assert second.attributes["gen_ai.provider.name"] == "spare"
    assert second.attributes["gen_ai.usage.output_tokens"] == 30
    assert second.attributes["headrace.attempt"] == 2


def test_state_spans_tell_why_and_how_long_but_no_key_when_retrying(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    play(telemetry, row_of("retried"))
    retrying = next(span for span in exporter.get_finished_spans() if span.name == "retrying")
    assert dict(retrying.attributes or {}) == {
        "headrace.from_state": "requesting",
        "headrace.event": "retry_request",
        "headrace.attempt": 1,
        "headrace.provider": "claude",
        "headrace.model": "claude-x",
        "headrace.reason": "the key [redacted] is overloaded",
        "headrace.wait_ms": 400,
    }


@pytest.mark.parametrize(("kind", "code"), [("failed", "rate_limit_exceeded"), ("cancelled", "cancelled"), ("refused", "invalid_request")])
def test_status_is_an_error_with_its_type_when_failed(
    kind: str, code: str, telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    play(telemetry, row_of(kind))
    root, *_ = spans = exporter.get_finished_spans()
    ended = next(span for span in spans if span.name == "failed")
    assert [(span.status.status_code, span.status.description) for span in (root, ended)] == [(StatusCode.ERROR, code)] * 2
    assert (root.attributes or {})["error.type"] == code


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_the_caller_is_in_any_span(
    kind: str, telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    play(telemetry, row_of(kind))
    shown = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "prompt-canary" not in shown
    assert "sk-secret" not in shown


def test_nothing_is_exported_when_the_caller_is_not_sampled(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    (sent,) = play(telemetry, row_of("completed"), UNSAMPLED)
    assert sent.startswith(f"00-{TRACE_ID}-")
    assert sent.endswith("-00")
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE_ID}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"{CALLER}-more",
        "x" * 600,
        "00-é",
    ],
)
def test_new_sampled_trace_begins_when_the_traceparent_is_not_valid(
    traceparent: str | None, telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    (sent,) = play(telemetry, row_of("completed"), traceparent)
    root = exporter.get_finished_spans()[0]
    assert root.parent is None
    assert ids(root)[0] not in (TRACE_ID, "0" * 32)
    assert sent.startswith(f"00-{ids(root)[0]}-")
    assert sent.endswith("-01")


def test_traceparent_of_a_later_version_is_joined(telemetry: Telemetry) -> None:
    assert telemetry.start(None, f"01-{TRACE_ID}-b7ad6b7169203331-01-more").trace_id == TRACE_ID


def test_request_ends_once_when_end_is_called_twice(
    telemetry: Telemetry, exporter: InMemorySpanExporter, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    trace = telemetry.start(request_data, None)
    trace.end(row_of("completed"))
    count = len(exporter.get_finished_spans())
    trace.end(row_of("completed"))
    assert len(exporter.get_finished_spans()) == count > 0


def test_nothing_is_exported_when_the_request_is_dropped(
    telemetry: Telemetry, exporter: InMemorySpanExporter, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    trace = telemetry.start(request_data, None)
    trace.drop()
    trace.end(row_of("completed"))
    assert exporter.get_finished_spans() == ()


def test_recovered_request_has_its_spans_in_its_trace(
    telemetry: Telemetry, exporter: InMemorySpanExporter, row_of: Callable[[str], LogRow]
) -> None:
    telemetry.recovered(row_of("cancelled").model_copy(update={"trace_id": TRACE_ID}))
    root, *children = exporter.get_finished_spans()
    assert root.name == "recovered"
    assert root.status.status_code is StatusCode.ERROR
    assert ids(root)[0] == TRACE_ID
    assert root.parent is None
    assert [span.name for span in children] == ["validating", "requesting", "streaming", "failed", "chat claude-x"]


def test_failure_inside_telemetry_is_logged_and_not_raised(
    telemetry: Telemetry, row_of: Callable[[str], LogRow], caplog: pytest.LogCaptureFixture
) -> None:
    broken = row_of("completed").model_copy(update={"attempts": None})
    telemetry.start(None, None).end(broken)
    telemetry.recovered(broken.model_copy(update={"trace_id": "x"}))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        f"the telemetry of request {broken.request_id} failed",
        f"the telemetry of the recovered request {broken.request_id} failed",
    ]


@given(
    ticks=st.lists(st.integers(min_value=-5_000, max_value=5_000), min_size=1, max_size=12),
    end=st.one_of(st.none(), st.integers(min_value=-5_000, max_value=50_000)),
    terminal=st.booleans(),
)
def test_times_add_up_whatever_the_wall_clock_did(ticks: list[int], end: int | None, terminal: bool) -> None:
    from headrace_server.telemetry.spans import SpanBuilder

    start, at, transitions = 1_000_000, 1_000_000, []
    for tick in ticks:
        transitions.append(Transition(from_state=State.IDLE, to_state=State.RETRYING, event=Event.RETRY_REQUEST, time=at))
        at += tick
    if terminal:
        transitions.append(Transition(from_state=State.RETRYING, to_state=State.FAILED, event=Event.REQUEST_FAILED, time=at))
    request_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    row = LogRow(
        id=request_id,
        request_id=request_id,
        state=transitions[-1].to_state,
        start_time=start,
        end_time=None if end is None else start + end,
        transitions=tuple(transitions),
        created_at=start,
        updated_at=start,
    )
    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1))
    root, *children = SpanBuilder(Resource({})).build(row, context, None)
    lasting = [times(span) for span in children]
    assert sum(after - before for before, after in lasting) == times(root)[1] - times(root)[0]
    assert lasting[0][0] == times(root)[0] == start * MS
    assert lasting[-1][1] == times(root)[1]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(lasting))
    assert row.state not in TERMINAL or lasting[-1][0] == lasting[-1][1]
