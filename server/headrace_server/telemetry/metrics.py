"""Metrics of requests, recorded once, when a request ends.

A record of an instrument costs about 13 µs, so only the two histograms are recorded; what is merely counted is kept in plain tallies that
the instruments read when metrics are collected. Names of providers and models are bounded, because callers choose them.
"""

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.lifecycle import Event
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow
from headrace_server.telemetry import names

MOST_LABELS = 200
"""Different values of one label; whatever comes after them is `other`."""
OTHER = "other"

_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60)


class Metrics:
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        self._in_flight = 0
        self._providers = _Label()
        self._models = _Label()
        self._requests = _Tally("provider", "model", "state", "code")
        self._calls = _Tally("provider", "model", "code")
        self._retries = _Tally("provider")
        self._fallbacks = _Tally("provider")
        self._tokens = _Tally("provider", "model", "type")
        self._unknown_errors = _Tally("provider", "dialect", "http_status")
        self._unknown_events = _Tally("provider", "dialect")
        self._duration = meter.create_histogram(
            names.DURATION, "s", "From acceptance to the end of a request.", explicit_bucket_boundaries_advisory=_DURATION_BUCKETS
        )
        self._first_token = meter.create_histogram(
            names.FIRST_TOKEN, "s", "From acceptance to the first token.", explicit_bucket_boundaries_advisory=_FIRST_TOKEN_BUCKETS
        )
        for name, tally, unit, description in (
            (names.REQUESTS, self._requests, "{request}", "Requests that have ended, by state and error code."),
            (names.CALLS, self._calls, "{call}", "Calls of providers that have ended, by error code."),
            (names.RETRIES, self._retries, "{retry}", "Times a provider was to be tried again."),
            (names.FALLBACKS, self._fallbacks, "{fallback}", "Times a provider was left for the next one."),
            (names.TOKENS, self._tokens, "{token}", "Tokens used, by type: input or output."),
            (names.UNKNOWN_ERRORS, self._unknown_errors, "{error}", "Errors of providers that are in no table, by HTTP status."),
            (names.UNKNOWN_EVENTS, self._unknown_events, "{event}", "Events of types that no dialect knows; they were passed over."),
        ):
            meter.create_observable_counter(name, [tally.observe], unit, description)
        meter.create_observable_up_down_counter(
            names.IN_FLIGHT, [lambda _: [Observation(self._in_flight)]], "{request}", "Requests that are running."
        )

    def begin(self) -> None:
        """A request has begun."""
        self._in_flight += 1

    def end(self) -> None:
        """A request that has begun is not running any more."""
        self._in_flight -= 1

    def unknown_error(self, provider: Provider, http_status: int) -> None:
        """Count an error that is in no dialect's table."""
        self._unknown_errors.add(1, self._providers.bounded(provider.provider, known=True), provider.dialect, str(http_status))

    def unknown_events(self, provider: Provider, count: int) -> None:
        """Count events of unknown types."""
        self._unknown_events.add(count, self._providers.bounded(provider.provider, known=True), provider.dialect)

    def record(self, row: LogRow) -> None:
        """Count a request that has ended."""
        known = bool(row.attempts) and _is_telling(row.error_code)
        provider = self._providers.bounded(row.provider, known=known)
        model = self._models.bounded(row.model, known=known)
        self._requests.add(1, provider, model, row.state, row.error_code or "")
        for attempt in row.attempts:
            code = attempt.error.code if attempt.error else None
            # Only providers that are configured are called, retried or left; a model is what a caller wrote.
            called = self._providers.bounded(attempt.provider, known=True)
            self._calls.add(1, called, self._models.bounded(attempt.model, known=_is_telling(code)), code or "")
        self._count_detours(row)
        attributes = {"provider": provider, "model": model, "state": row.state.value}
        if row.end_time is not None:
            duration = row.end_time - row.start_time if row.duration is None else row.duration
            self._duration.record(max(0, duration) / 1000, attributes)
        if (result := row.response_data) is not None:
            if result.first_token_latency is not None:
                self._first_token.record(result.first_token_latency / 1000, {"provider": provider, "model": model})
            if result.usage is not None:
                self._tokens.add(result.usage.input_tokens, provider, model, "input")
                self._tokens.add(result.usage.output_tokens, provider, model, "output")

    def _count_detours(self, row: LogRow) -> None:
        provider = ""
        for transition in row.transitions:
            if transition.event is Event.RETRY_REQUEST:
                self._retries.add(1, self._providers.bounded(transition.provider, known=True))
            elif transition.event is Event.FALLBACK_TO_PROVIDER:
                # The transition names the provider that takes over; the one that was left is of interest.
                self._fallbacks.add(1, self._providers.bounded(provider, known=True))
            provider = transition.provider


def _is_telling(code: ErrorCode | None) -> bool:
    """Whether the names in a request that ended so are worth a label: one that failed with these codes may hold any name."""
    return code not in (ErrorCode.INVALID_REQUEST, ErrorCode.MODEL_NOT_FOUND)


class _Label:
    """The values of a label. A name becomes one only when it is known to be more than a caller's fancy, and while there is room."""

    def __init__(self) -> None:
        self._values: set[str] = {""}

    def bounded(self, value: str, *, known: bool) -> str:
        if value in self._values:
            return value
        if known and len(self._values) < MOST_LABELS:
            self._values.add(value)
            return value
        return OTHER


class _Tally:
    """A counter for each combination of labels. Written by the event loop, read by whatever thread collects."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, count: int, *values: str) -> None:
        self._counts[values] = self._counts.get(values, 0) + count

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        # The copy is one step for the interpreter, so that the other thread cannot change the size in the middle of it.
        return [Observation(count, dict(zip(self._labels, values, strict=True))) for values, count in self._counts.copy().items()]
