"""Requests as telemetry sees them: ids and the sampling decision at the start, everything else from the row at the end."""

import logging
from collections.abc import Sequence
from random import getrandbits

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.telemetry import names
from headrace_server.telemetry.logging import log_request
from headrace_server.telemetry.metrics import Metrics
from headrace_server.telemetry.pipeline import Pipeline
from headrace_server.telemetry.spans import new_span_id

logger = logging.getLogger(__name__)

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """Spans, metrics and the log of requests. Implements `ports.Telemetry` and `ports.Unknowns`.

    Ids and `traceparent` are always there; spans and metrics are made only where the pipeline takes them somewhere. `sampler` decides at
    the start of a request, by default as its caller did, and for a caller without a trace always yes.
    """

    def __init__(self, pipeline: Pipeline | None = None, *, sampler: Sampler = DEFAULT_ON) -> None:
        self._pipeline = pipeline or Pipeline()
        self._sampler = sampler

    def start(self, request: GenerateRequest | None, traceparent: str | None) -> "RequestTrace":
        """Fix the ids of a request. A `traceparent` that is not valid begins a new trace, as the W3C's recommendation asks."""
        joined = _propagator.extract({"traceparent": traceparent}, Context()) if traceparent else Context()
        parent = get_current_span(joined).get_span_context()
        context = self._context(parent.trace_id if parent.is_valid else _new_trace_id(), joined)
        metrics = self._pipeline.metrics if request is not None else None  # what is refused never runs
        if metrics is not None:
            metrics.begin()
        return RequestTrace(self, context, parent if parent.is_valid else None, metrics)

    def recovered(self, row: LogRow) -> None:
        """A request that died with its process has been ended by recovery. Never raises.

        Its span `recovered` stands in the request's trace, beside the caller's spans: whose child it was died with the process.
        """
        try:
            trace_id = int(row.trace_id, 16) if row.trace_id else _new_trace_id()
            self._show(row, self._context(trace_id, Context()), None, (), recovered=True)
        except Exception:  # telemetry never stops a start
            logger.exception("the telemetry of the recovered request %s failed", row.request_id)

    def unknown_error(self, provider: Provider, http_status: int) -> None:
        """See ports.Unknowns."""
        if self._pipeline.metrics is not None:
            self._pipeline.metrics.unknown_error(provider, http_status)

    def unknown_events(self, provider: Provider, count: int) -> None:
        """See ports.Unknowns."""
        if self._pipeline.metrics is not None:
            self._pipeline.metrics.unknown_events(provider, count)

    @property
    def prometheus_address(self) -> str | None:
        """Where metrics are served: HOST:PORT, with the real port where 0 was asked for."""
        return self._pipeline.metrics_address

    async def flush(self, within: float = 5.0) -> bool:
        """Export what is waiting, for at most `within` seconds; whether all of it went out in that time."""
        return await self._pipeline.flush(within)

    async def close(self, within: float = 5.0) -> None:
        """Export what is waiting, for at most `within` seconds, and stop. Never raises; the loop goes on meanwhile."""
        await self._pipeline.close(within)

    def _context(self, trace_id: int, joined: Context) -> SpanContext:
        decision = self._sampler.should_sample(joined, trace_id, names.GENERATE, SpanKind.SERVER).decision
        flags = _SAMPLED if decision is Decision.RECORD_AND_SAMPLE else _NOT_SAMPLED
        return SpanContext(trace_id, new_span_id(), is_remote=False, trace_flags=flags)

    def _show(
        self, row: LogRow, context: SpanContext, parent: SpanContext | None, calls: Sequence[int], *, recovered: bool = False
    ) -> None:
        log_request(row, "request recovered" if recovered else "")
        if self._pipeline.metrics is not None:
            self._pipeline.metrics.record(row)
        if self._pipeline.span_processor is not None and context.trace_flags.sampled:
            for span in self._pipeline.spans.build(row, context, parent, calls, recovered=recovered):
                self._pipeline.span_processor.on_end(span)


class RequestTrace:
    """The trace of one request. Implements `ports.Trace`."""

    __slots__ = ("_calls", "_context", "_ended", "_metrics", "_parent", "_telemetry", "trace_id", "traceparent")

    def __init__(self, telemetry: Telemetry, context: SpanContext, parent: SpanContext | None, metrics: Metrics | None) -> None:
        """`metrics` is where the request counts as running."""
        self._telemetry = telemetry
        self._context = context
        self._parent = parent
        self._metrics = metrics
        self._calls: list[int] = []
        self._ended = False
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = self._traceparent(context.span_id)

    def attempt(self) -> str:
        """Begin the next provider call: the `traceparent` that goes to the provider."""
        self._calls.append(new_span_id())
        return self._traceparent(self._calls[-1])

    def drop(self) -> None:
        """There is nothing to show of this request."""
        if not self._ended:
            self._ended = True
            if self._metrics is not None:
                self._metrics.end()

    def end(self, row: LogRow) -> None:
        """Spans, metrics and the log line of the request, once. Never raises."""
        if self._ended:
            return
        self.drop()
        try:
            self._telemetry._show(row, self._context, self._parent, self._calls)
        except Exception:  # telemetry never fails a request
            logger.exception("the telemetry of request %s failed", row.request_id)

    def _traceparent(self, span_id: int) -> str:
        return f"00-{self.trace_id}-{span_id:016x}-{self._context.trace_flags:02x}"


def _new_trace_id() -> int:
    return getrandbits(128) or 1
