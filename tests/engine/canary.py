"""Keys that must not be heard of: providers repeat them in their errors, bugs tell them, and nobody else may see them."""

import logging
import traceback
from collections.abc import Iterator

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from engine.witness import Witness
from headrace_server.domain.events import Failed
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.rpc.codec_event import StoredEvents
from headrace_server.rpc.status import MAX_STATUS, to_status
from headrace_server.store.memory import MemoryStore
from headrace_server.store.rows import LOGS, METRICS
from headrace_server.telemetry.logging import _formatter
from headrace_server.telemetry.pipeline import Pipeline
from headrace_server.telemetry.request import RequestTrace, Telemetry

CANARY = "canary4711"


def canary(name: str) -> str:
    """A key for a provider that looks like no key of any vendor, so that only who knows it can take it out."""
    return f"{CANARY}.{name}"


def key_of(provider: Provider) -> str:
    assert provider.api_key is not None
    return provider.api_key.get_secret_value()


class Ears(logging.Handler):
    """Listens at the service's loggers while a world runs. `clock` is the loop's, for the story."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(logging.INFO)
        self._witness = witness
        # As the service configures it: no keys are named to it, it takes out what looks like one.
        self.setFormatter(_formatter(json=True, secrets=tuple, colors=False))
        self._logger = logging.getLogger("headrace_server")

    def __enter__(self) -> "Ears":
        self._before = self._logger.level, self._logger.propagate
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.level, self._logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            self._witness.say(f"logged: {record.exc_info[1]!r} at {traceback.extract_tb(record.exc_info[2])[-1]}")
        if CANARY in (line := self.format(record)):
            self._witness.blame(f"a key in a line of the log: {line[:400]}")


class WitnessedTrace:
    """Counts its ends. Implements `ports.Trace`."""

    def __init__(self, trace: RequestTrace, request_id: str) -> None:
        self.request_id = request_id
        self.ends: list[str] = []
        self.trace_id = trace.trace_id
        self.traceparent = trace.traceparent
        self.attempt = trace.attempt
        self._trace = trace

    def drop(self) -> None:
        self.ends.append("dropped")
        self._trace.drop()

    def end(self, row: LogRow) -> None:
        self.ends.append(f"ended {row.state}")
        self._trace.end(row)


class WitnessedTelemetry(SpanProcessor):
    """The service's own, whose spans are looked through. Implements `ports.Telemetry`."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._telemetry = Telemetry(Pipeline(span_processor=self))
        self.traces: list[WitnessedTrace] = []

    def start(self, request: GenerateRequest | None, traceparent: str | None) -> WitnessedTrace:
        trace = self._telemetry.start(request, traceparent)
        self.traces.append(WitnessedTrace(trace, "a refused request" if request is None else request.request_id))
        return self.traces[-1]

    def on_end(self, span: ReadableSpan) -> None:
        if CANARY in f"{span.name} {span.attributes} {span.status.description}":
            self._witness.blame(f"a key in the span {span.name}: {span.attributes}")


def leaks(witness: Witness, store: MemoryStore) -> Iterator[str]:
    """Where a key is told: in an event, a status, an error that somebody caught, or on record."""
    canary = CANARY.encode()
    for told in witness.told.values():
        if canary in StoredEvents().encode(told.request_id, told.events):
            yield f"{told.request_id}: a key in its events"
        for event in told.events:
            if isinstance(event, Failed):
                status = to_status(event.error)
                told_all = status.SerializeToString()
                if status.code == 0 or len(told_all) > MAX_STATUS or canary in told_all:
                    yield f"{told.request_id}: it failed, and its status is {str(status)[:400]}"
    for row in store._logs.values():
        if CANARY in str(LOGS.encode(row)):
            yield f"{row.request_id}: a key in its row"
    for line in store._metrics:
        if CANARY in str(METRICS.encode(line)):
            yield f"{line.request_id}: a key in its metrics"
    for request_id, payloads in store._kept.items():
        if any(canary in payload for payload in payloads):
            yield f"{request_id}: a key in its kept events"
    yield from (f"a key in an error that somebody caught: {text}" for text in witness.errors if CANARY in text)
