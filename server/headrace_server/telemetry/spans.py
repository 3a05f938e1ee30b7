"""A row becomes spans: one for the request, one for each state it visited, one for each call of a provider.

Spans are made after the fact, in one go, with the ids and times that were fixed before; so they are built as values and handed to a span
processor, without the tracer that measures as it goes (ten times the cost).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import getrandbits

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from headrace_server.domain.lifecycle import TERMINAL, State, Transition
from headrace_server.domain.record import LogRow
from headrace_server.domain.redaction import redact
from headrace_server.domain.request import GenerateRequest, TextFormat
from headrace_server.domain.result import Attempt
from headrace_server.domain.usage import Usage
from headrace_server.telemetry import names

_SCOPE = InstrumentationScope("headrace")
_LONGEST_REASON = 256
_NS_PER_MS = 1_000_000

_UNSET = Status(StatusCode.UNSET)
_OK = Status(StatusCode.OK)

Value = str | bool | int | float | Sequence[str]
Attributes = dict[str, Value]


@dataclass(frozen=True, slots=True)
class _Visit:
    """The time spent in a state, in milliseconds since the epoch."""

    transition: Transition
    start: int
    end: int


class SpanBuilder:
    """Builds the spans of requests; all of them are marked with the same resource."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def build(
        self, row: LogRow, context: SpanContext, parent: SpanContext | None, calls: Sequence[int] = (), *, recovered: bool = False
    ) -> list[ReadableSpan]:
        """All spans of a request that has ended.

        `context` is of the request's own span, `parent` the caller's, `calls` are the span ids that went out with the provider calls.
        """
        visits, end = _visits(row)
        request = _request_attributes(row)
        name = names.RECOVERED if recovered else _named(names.GENERATE, row.model)
        # SERVER: what the service does for a caller. The calls of providers, below, are the CLIENT spans of the conventions.
        root = self._span(
            name, context, parent, SpanKind.SERVER, row.start_time, end, _root_attributes(row) | request, _status(row.state, row.error_code)
        )
        spans = [root]
        requesting: list[SpanContext] = []
        for visit in visits:
            own = _child(context)
            state = visit.transition.to_state
            status = _status(state, row.error_code) if state is State.FAILED else _UNSET
            spans.append(
                self._span(state, own, context, SpanKind.INTERNAL, visit.start, visit.end, _state_attributes(visit.transition), status)
            )
            if state is State.REQUESTING:
                requesting.append(own)
        for index, attempt in enumerate(row.attempts):
            own = _child(context, calls[index] if index < len(calls) else None)
            under = requesting[index] if index < len(requesting) else context
            ended = end if attempt.duration is None else attempt.start_time + attempt.duration
            attributes = _call_attributes(row, index, attempt) | request
            status = _status(attempt.state, attempt.error.code if attempt.error else None)
            name = _named(names.CHAT, attempt.model)
            spans.append(self._span(name, own, under, SpanKind.CLIENT, attempt.start_time, ended, attributes, status))
        return spans

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        start: int,
        end: int,
        attributes: Attributes,
        status: Status,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=status,
            start_time=start * _NS_PER_MS,
            end_time=max(start, end) * _NS_PER_MS,
            instrumentation_scope=_SCOPE,
        )


def new_span_id() -> int:
    """A random id; 0 is not valid."""
    return getrandbits(64) or 1


def _child(context: SpanContext, span_id: int | None = None) -> SpanContext:
    return SpanContext(context.trace_id, span_id or new_span_id(), is_remote=False, trace_flags=context.trace_flags)


def _named(what: str, model: str) -> str:
    return f"{what} {model}" if model else what


def _status(state: State, code: str | None) -> Status:
    return Status(StatusCode.ERROR, code or state) if state is State.FAILED else _OK


def _visits(row: LogRow) -> tuple[list[_Visit], int]:
    """The states visited, and when the request ended. Together they last as long as the request: the first begins with it, each lasts
    until the next, the terminal one is a point at the end. Times never run backwards, whatever the wall clock did.
    """
    starts: list[int] = []
    latest = row.start_time
    for transition in row.transitions:
        latest = max(latest, transition.time) if starts else latest
        starts.append(latest)
    end = max(latest, row.end_time or 0)
    if starts and row.transitions[-1].to_state in TERMINAL:
        starts[-1] = end
    ends = [*starts[1:], end]
    return [_Visit(*visit) for visit in zip(row.transitions, starts, ends, strict=True)], end


# ---------------------------------------------------------------- attributes


def _root_attributes(row: LogRow) -> Attributes:
    attributes: Attributes = {
        names.OPERATION: names.CHAT,
        names.REQUEST_ID: row.request_id,
        names.STATE: row.state,
        names.ATTEMPTS: len(row.attempts),
    }
    attributes |= _provider_attributes(row.provider, row.model)
    if row.conversation_id:
        attributes[names.CONVERSATION_ID] = row.conversation_id
    if row.error_code:
        attributes[names.ERROR_TYPE] = row.error_code
    if row.error and row.error.subreason:
        attributes[names.SUBREASON] = row.error.subreason
    if (result := row.response_data) is not None:
        attributes |= _answer_attributes(row) | _usage_attributes(result.usage)
        if result.first_token_latency is not None:
            attributes[names.RESPONSE_TIME_TO_FIRST_CHUNK] = result.first_token_latency / 1000
        if result.cost is not None:
            attributes[names.COST_MICRO_USD] = result.cost
    return attributes


def _state_attributes(transition: Transition) -> Attributes:
    attributes: Attributes = {
        names.FROM_STATE: transition.from_state,
        names.EVENT: transition.event,
        names.ATTEMPT: transition.attempt,
    }
    if transition.provider:
        attributes[names.PROVIDER] = transition.provider
    if transition.model:
        attributes[names.MODEL] = transition.model
    if transition.reason:
        attributes[names.REASON] = redact(transition.reason)[:_LONGEST_REASON]
    if transition.wait is not None:
        attributes[names.WAIT_MS] = transition.wait
    return attributes


def _call_attributes(row: LogRow, index: int, attempt: Attempt) -> Attributes:
    attributes: Attributes = {names.OPERATION: names.CHAT, names.ATTEMPT: index + 1}
    attributes |= _provider_attributes(attempt.provider, attempt.model) | _usage_attributes(attempt.usage)
    if attempt.replay_safety:
        attributes[names.REPLAY_SAFETY] = attempt.replay_safety
    if (error := attempt.error) is not None:
        attributes[names.ERROR_TYPE] = error.code
        if error.subreason:
            attributes[names.SUBREASON] = error.subreason
        if error.http_status:
            attributes[names.HTTP_STATUS] = error.http_status
    if index == len(row.attempts) - 1:
        attributes |= _answer_attributes(row)
    return attributes


def _provider_attributes(provider: str, model: str) -> Attributes:
    attributes: Attributes = {}
    if provider:
        attributes[names.PROVIDER] = provider
        attributes[names.PROVIDER_NAME] = names.WELL_KNOWN_PROVIDERS.get(provider, provider)
    if model:
        attributes[names.REQUEST_MODEL] = model
    return attributes


def _request_attributes(row: LogRow) -> Attributes:
    """What was asked for, without any text of the caller's."""
    request = row.request_data
    if not isinstance(request, GenerateRequest):
        return {}
    settings = {
        names.REQUEST_STREAM: request.stream,
        names.REQUEST_MAX_TOKENS: request.max_tokens,
        names.REQUEST_TEMPERATURE: request.temperature,
        names.REQUEST_TOP_P: request.top_p,
        names.REQUEST_TOP_K: request.top_k,
        names.REQUEST_SEED: request.seed,
    }
    attributes: Attributes = {name: value for name, value in settings.items() if value is not None}
    if request.response_format is not None:
        attributes[names.OUTPUT_TYPE] = "text" if isinstance(request.response_format, TextFormat) else "json"
    return attributes


def _answer_attributes(row: LogRow) -> Attributes:
    attributes: Attributes = {}
    if row.response_data is not None:
        if row.response_data.model:
            attributes[names.RESPONSE_MODEL] = row.response_data.model
        if row.response_data.finish_reason:
            attributes[names.RESPONSE_FINISH_REASONS] = (row.response_data.finish_reason,)
    return attributes


def _usage_attributes(usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    attributes: Attributes = {
        names.USAGE_INPUT_TOKENS: usage.input_tokens,
        names.USAGE_OUTPUT_TOKENS: usage.output_tokens,
    }
    if usage.cached_input_tokens:
        attributes[names.USAGE_CACHED_INPUT_TOKENS] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        attributes[names.USAGE_REASONING_TOKENS] = usage.reasoning_tokens
    if usage.source:
        attributes[names.USAGE_SOURCE] = usage.source
    return attributes
