"""Reading an answer to whatever end, and what must hold then."""

from collections.abc import Iterable
from typing import Any

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Fault, ProviderFault
from headrace_server.domain.events import Delta
from headrace_server.domain.lifecycle import State
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.record import LogRow
from headrace_server.domain.result import FinishReason, GenerationResult
from headrace_server.ledger import provider_error
from headrace_server.providers.sse import Scanner
from headrace_server.store.rows import LOGS
from support.exchanges import Case

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Reading:
    """What came out, whether it ended well or not."""

    def __init__(self, case: Case) -> None:
        self.decoder = case.decoder()
        self.deltas: list[Delta] = []
        self.fault: Fault | None = None

    def events(self, events: list[bytes]) -> "Reading":
        try:
            for event in events:
                self.deltas += self.decoder.event("", event)
            self.decoder.finish()
        except ProviderFault as error:
            self.fault = error.fault
        return self

    def whole(self, body: bytes) -> "Reading":
        try:
            self.deltas += self.decoder.whole(body)
            self.decoder.finish()
        except ProviderFault as error:
            self.fault = error.fault
        return self

    def stream(self, pieces: Iterable[bytes]) -> "Reading":
        """Through the scanner."""
        scanner = Scanner()
        try:
            for piece in pieces:
                for name, data in scanner.feed(piece):
                    self.deltas += self.decoder.event(name, data)
            for name, data in scanner.close():
                self.deltas += self.decoder.event(name, data)
            self.decoder.finish()
        except ProviderFault as error:
            self.fault = error.fault
        return self

    def check(self) -> None:
        """What came out can be stored."""
        check_storable(self.decoder.answer, self.fault, self.deltas)


def row_of(answer: Answer, fault: Fault | None) -> LogRow:
    """The row as the ledger makes it."""
    result = GenerationResult.model_construct(
        content=answer.content(),
        finish_reason=answer.finish_reason if fault is None else FinishReason.ERROR,
        native_finish_reason=answer.native_finish_reason,
        usage=answer.usage,
        provider="p",
        model=answer.model,
    )
    return LogRow(
        id=ID,
        request_id=ID,
        state=State.COMPLETED if fault is None else State.FAILED,
        response_data=result,
        error=None if fault is None else provider_error(fault, request_id=ID, provider="p"),
        start_time=0,
        created_at=0,
        updated_at=0,
    )


def said_by(answer: Answer) -> dict[str, Any]:
    """What an answer says, by kind, however it is cut into parts."""
    content = answer.content()
    return {
        "text": "".join(part.text for part in content if isinstance(part, TextPart)),
        "refusal": "".join(part.refusal for part in content if isinstance(part, RefusalPart)),
        "reasoning": "".join(part.text for part in content if isinstance(part, ReasoningPart)),
        "calls": [part for part in content if isinstance(part, ToolCallPart)],
        "provider_data": [part for part in content if isinstance(part, ProviderDataPart)],
    }


def check_storable(answer: Answer, fault: Fault | None, deltas: list[Delta]) -> None:
    """The store takes what there is, and gives the same back; and what readers were told is what the result says."""
    row = row_of(answer, fault)
    assert LOGS.decode(LOGS.encode(row)) == row
    calls = [part for part in answer.content() if isinstance(part, ToolCallPart)]
    assert all(part.id and part.name for part in calls)
    if fault is None:
        assert answer.finish_reason not in (None, FinishReason.ERROR)
        told = Answer()
        for delta in deltas:
            told.add(delta)
        assert said_by(told) == said_by(answer)
