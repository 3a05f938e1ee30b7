"""What one request of a row led to: for its caller, on record, and at the providers; with what can be asserted of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import grpc

from headrace.v1 import error_pb2, lifecycle_pb2, result_pb2
from headrace_server.domain.lifecycle import State
from headrace_server.domain.message import TextPart
from headrace_server.domain.record import LogRow
from headrace_server.fake_provider import Recorded
from support.fault_document import cells
from support.service import details

SLACK = 5_000
"""Milliseconds that a wait may seem longer than it was told, on a machine that is busy: the clock was only moved on by what was told."""

MAX_MESSAGE, MAX_STATUS = 1_000, 4_000
"""Bytes of a status message, and of all details."""


@dataclass
class Seen:
    """What one request led to: for its caller, on record, and at the providers."""

    script: str
    fault: str
    error: grpc.aio.AioRpcError | None
    events: Sequence[Any]
    """Of the stream, in order; none for Generate."""
    result: Any
    """The GenerationResult of an answer."""
    record: Any
    """The RequestRecord that GetRequest shows; None where there is none."""
    row: LogRow | None
    """The store's row."""
    asked: Mapping[str, Sequence[Recorded]]
    """The HTTP requests that reached each provider."""
    words: dict[str, str] = field(default_factory=dict)
    """Words for details of the status that differ from run to run, by the name of the detail."""
    told_waits: str | None = None

    @property
    def calls(self) -> dict[str, int]:
        """How many HTTP requests reached each provider."""
        return {name: len(asked) for name, asked in self.asked.items()}

    # ------------------------------------------------------------ what the caller saw

    @property
    def status(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK if self.error is None else self.error.code()

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection broke, so that the status is not the service's: it tells nothing more."""
        return self.status is grpc.StatusCode.UNAVAILABLE and not self.details

    @property
    def details(self) -> dict[str, Any]:
        """The details of the status, by the names of their types."""
        return {} if self.error is None else details(self.error)

    @property
    def info(self) -> dict[str, str]:
        """The metadata of the ErrorInfo."""
        return dict(self.details["ErrorInfo"].metadata)

    @property
    def retry_after(self) -> float | None:
        """Seconds of the RetryInfo; None without one."""
        retry = self.details.get("RetryInfo")
        return None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9

    @property
    def chunks(self) -> list[Any]:
        return [event.chunk for event in self.events if event.WhichOneof("event") == "chunk"]

    @property
    def text(self) -> str:
        """Of all chunks that count: those before a discontinuity do not any more."""
        counts: list[Any] = []
        for event in self.events:
            match event.WhichOneof("event"):
                case "chunk":
                    counts.append(event.chunk)
                case "discontinuity":
                    counts = [chunk for chunk in counts if chunk.index < event.discontinuity.discard_from_index]
        return "".join(chunk.text for chunk in counts)

    # ------------------------------------------------------------ what is on record

    @property
    def path(self) -> list[str]:
        """The states that the request was in, after `idle`."""
        return [] if self.row is None else [step.to_state.value for step in self.row.transitions]

    @property
    def attempts(self) -> list[str]:
        """The calls on record: provider, and how each ended."""
        told = []
        for attempt in self.row.attempts if self.row is not None else ():
            error = attempt.error
            how = attempt.state.value if error is None else error.code.value + (f"/{error.subreason}" if error.subreason else "")
            told.append(f"{attempt.provider} {how}")
        return told

    @property
    def partial_text(self) -> str:
        """The text of the answer on record."""
        answer = self.row.response_data if self.row is not None else None
        return "".join(part.text for part in answer.content if isinstance(part, TextPart)) if answer is not None else ""

    @property
    def usage_source(self) -> str:
        """Where the usage on record comes from; empty without usage."""
        answer = self.row.response_data if self.row is not None else None
        source = answer.usage.source if answer is not None and answer.usage is not None else None
        return source.value if source is not None else ""

    # ------------------------------------------------------------ assertions

    def answers(self, *, by: str, text: str | None = None, path: str | None = None) -> None:
        """The answer came from this provider, whole, and is on record so."""
        assert self.error is None, self.error
        assert self.result.provider == by
        assert self.row is not None
        assert (self.row.state, self.row.provider, self.row.error_code) == (State.COMPLETED, by, None)
        if self.events:
            assert self.text == "".join(part.text for part in self.result.content) == self.partial_text
        assert text is None or self.partial_text == text
        self._went(path)

    def fails(self, status: grpc.StatusCode, reason: str, subreason: str = "", *, path: str | None = None) -> None:
        """The request failed with this status and reason, and is on record so."""
        assert self.error is not None, "the request was answered"
        assert (self.status, self.details["ErrorInfo"].reason, self.info.get("subreason", "")) == (status, reason, subreason)
        assert self.row is not None
        assert (self.row.state, str(self.row.error_code)) == (State.FAILED, reason.lower())
        assert self.row.error is not None
        assert self.row.error.subreason == subreason
        self._went(path)

    def _went(self, path: str | None) -> None:
        assert path is None or " ".join(self.path) == path

    def waits(self, *bounds: tuple[float, float]) -> None:
        """The record tells of so many waits, each within its bounds (seconds, inclusive), and the request did wait as long as it says."""
        assert self.row is not None
        steps = self.row.transitions
        told = [(step, following) for step, following in pairwise(steps) if step.wait is not None]
        assert len(told) == len(bounds), [step.wait for step, _ in told]
        for (step, following), (least, most) in zip(told, bounds, strict=True):
            assert step.wait is not None
            assert least * 1000 <= step.wait <= most * 1000
            assert step.wait <= following.time - step.time < step.wait + SLACK
        self.told_waits = ", ".join(f"{least:g}–{most:g} s" for least, most in bounds)

    def check(self) -> "Seen":
        """Hold against one another what must agree in every row."""
        last = [event.WhichOneof("event") for event in self.events][-1:]
        ends = [event for event in self.events if event.WhichOneof("event") in ("completed", "failed")]
        if self.events and self.status is not grpc.StatusCode.CANCELLED and not self.is_cut_off:
            assert len(ends) == 1, "a generation ends exactly once"
            assert last == (["completed"] if self.error is None else ["failed"])
        if self.error is not None:
            trailers = dict(self.error.trailing_metadata() or ())
            assert len((self.error.details() or "").encode()) <= MAX_MESSAGE
            assert len(trailers.get("grpc-status-details-bin", b"")) <= MAX_STATUS
        if self.row is None:
            assert self.record is None
            return self
        shown = self.record
        assert request_state(shown.state) == self.row.state.value
        assert [request_state(step.to_state) for step in shown.transitions] == self.path
        assert [attempt.provider for attempt in shown.attempts] == [attempt.provider for attempt in self.row.attempts]
        assert shown.retry_attempt == self.row.retry_attempt == max(0, len(self.row.attempts) - 1)
        assert "".join(part.text for part in shown.response_data.content) == self.partial_text
        code = error_pb2.ErrorCode.Name(shown.error_code).removeprefix("ERROR_CODE_").lower()
        assert code == (self.row.error_code or "unspecified")
        assert sum(self.calls.values()) <= len(self.row.attempts), "a call is on record before it goes out"
        if self.error is not None and "ErrorInfo" in self.details:
            assert self.details["ErrorInfo"].reason.lower() == self.row.error_code
            assert self.info["attempts"] == str(len(self.row.attempts))
            assert self.pushback == ("-1" if self.row.attempts else None)
        return self

    @property
    def pushback(self) -> str | None:
        """The trailer that tells the caller's own retry policy to stay out of it."""
        trailers = dict(self.error.trailing_metadata() or ()) if self.error is not None else {}
        return trailers.get("grpc-retry-pushback-ms")

    # ------------------------------------------------------------ words for the document

    def line(self, case: str) -> str:
        """The row's line in the document."""
        if self.row is not None and self.told_waits is None:
            self.waits()
        calls = ", ".join(f"{name} {count}" for name, count in self.calls.items())
        fault = self.fault + (f"; {case}" if case else "")
        return cells(self.script, fault, "; ".join(self._caller()), "; ".join(self._on_record()), calls)

    def _caller(self) -> Iterator[str]:
        if self.error is None:
            reason = result_pb2.FinishReason.Name(self.result.finish_reason).removeprefix("FINISH_REASON_").lower()
            yield f"OK, answered by {self.result.provider}, {reason}"
            return
        if (info := self.details.get("ErrorInfo")) is None:
            yield self.status.name
            return
        subreason = self.info.get("subreason")
        yield f"{self.status.name}, {info.reason}" + (f"/{subreason}" if subreason else "")
        if self.chunks:
            yield f"{len(self.chunks)} chunks"
        for name, detail in self.details.items():
            if name in ("ErrorInfo", "ProviderError"):
                continue
            words = self.words.get(name) or _detail(detail)
            yield f"{name}({words})" if words else name
        if self.pushback is not None:
            yield f"pushback {self.pushback}"

    def _on_record(self) -> Iterator[str]:
        if self.row is None:
            yield "no row"
            return
        error = self.row.error
        how = "" if error is None else f" {error.code.value}" + (f"/{error.subreason}" if error.subreason else "")
        yield self.row.state.value + how
        yield ", ".join(f"{attempt} ×{n}" if (n := len(list(same))) > 1 else attempt for attempt, same in groupby(self.attempts)) or (
            "no attempt"
        )
        yield " → ".join(self.path)
        if self.told_waits:
            yield f"waits {self.told_waits}"
        if error is not None and self.partial_text:
            yield f"partial text {json.dumps(self.partial_text)}"
        if self.usage_source:
            yield f"usage {self.usage_source}"


def request_state(number: int) -> str:
    """The word of a RequestState."""
    return lifecycle_pb2.RequestState.Name(number).removeprefix("REQUEST_STATE_").lower()


def _detail(detail: Any) -> str:
    match detail.DESCRIPTOR.name:
        case "RetryInfo":
            return f"{detail.retry_delay.ToNanoseconds() / 1e9:g} s"
        case "BadRequest":
            return ", ".join(violation.field for violation in detail.field_violations if violation.field)
        case "ResourceInfo":
            return f"{detail.resource_type} {detail.resource_name}"
        case "QuotaFailure":
            return ", ".join(violation.subject for violation in detail.violations)
    return ""
