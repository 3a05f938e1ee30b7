"""Telemetry that shows nothing, for tests."""

from random import getrandbits

from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest


class NullTrace:
    """Ids, and nothing else. Implements `ports.Trace`."""

    def __init__(self) -> None:
        self.trace_id = f"{getrandbits(128) or 1:032x}"
        self.traceparent = self.attempt()

    def attempt(self) -> str:
        """A `traceparent` that asks for no spans."""
        return f"00-{self.trace_id}-{getrandbits(64) or 1:016x}-00"

    def drop(self) -> None:
        """Nothing."""

    def end(self, row: LogRow) -> None:
        """Nothing."""


class NullTelemetry:
    """Implements `ports.Telemetry`."""

    def start(self, request: GenerateRequest | None, traceparent: str | None) -> NullTrace:
        """A trace of its own."""
        return NullTrace()

    def recovered(self, row: LogRow) -> None:
        """Nothing."""
