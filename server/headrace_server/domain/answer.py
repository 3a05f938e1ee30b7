"""An answer as it grows: decoders put pieces in, the engine takes the whole (or what there is of it) out.

Pieces are only appended; texts are joined once, when the content is asked for.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

from headrace_server.domain.base import storable_json, storable_text
from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, Subreason
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ContentPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, falls


@dataclass(slots=True)
class _Open:
    """A part that is still growing: the deltas of one text, one piece of reasoning, one tool call or one refusal."""

    kind: type
    deltas: list[Any] = field(default_factory=list)


LONGEST_WORD = 256
"""Characters that are kept of a provider's name for something."""

PART_WEIGHT = 25
"""As many pieces a new part counts for: so much more memory it takes than a piece of one that is there, all the way to its record."""

NO_NAME = "\ufffd"
"""Stands for the name of a tool call that began without one."""


class _Word:
    """An attribute that holds a provider's name for something: cut to a sane length, and storable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._slot = f"_{name}"

    def __get__(self, answer: Any, owner: type) -> str:
        word: str = getattr(answer, self._slot)
        return word

    def __set__(self, answer: Any, word: str) -> None:
        setattr(answer, self._slot, storable_text(word[:LONGEST_WORD]))


class Answer:
    """What a provider has said so far. `usage`, `model` and the finish are set by the decoder as it learns them.

    All that it holds can be stored, whatever a decoder puts in. `unknown_events` counts what the decoder passed over because it did not
    know its type; `usage_fell` tells that a provider took back tokens it had counted; `most_pieces` is how many pieces may be added, where
    one that begins a part counts PART_WEIGHT more.
    """

    __slots__ = (
        "_calls",
        "_last",
        "_model",
        "_native_finish_reason",
        "_parts",
        "_pieces",
        "_provider_request_id",
        "_usage",
        "finish_reason",
        "most_pieces",
        "unknown_events",
        "usage_fell",
    )

    model = _Word()
    native_finish_reason = _Word()
    provider_request_id = _Word()

    def __init__(self) -> None:
        self._parts: list[_Open] = []
        self._calls: dict[int, _Open] = {}  # by position
        self._last: _Open | None = None  # the part that grows
        self._pieces = 0
        self.most_pieces = sys.maxsize
        self.unknown_events = 0
        self.model = ""
        self._usage: Usage | None = None
        self.usage_fell = False
        self.finish_reason: FinishReason | None = None
        self.native_finish_reason = ""
        self.provider_request_id = ""

    @property
    def usage(self) -> Usage | None:
        """Tokens as the provider last counted them."""
        return self._usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        if usage is not None and self._usage is not None and falls(self._usage, usage):
            self.usage_fell = True
        self._usage = usage

    def add(self, delta: Delta) -> None:
        """Append a piece. Neighbours of one kind grow the same part; calls grow by position, wherever they stand.

        Raises ProviderFault (EVENT_TOO_LARGE) for one piece too many: a piece takes many times its bytes in memory.
        """
        self._pieces += 1
        if self._pieces > self.most_pieces:
            raise too_many_pieces(self.most_pieces)
        kind, last = type(delta), self._last
        _make_storable(delta)
        if isinstance(delta, ToolCallDelta):
            if (call := self._calls.get(delta.position)) is not None:
                call.deltas.append(delta)
                return
            delta.name = delta.name or NO_NAME
        elif last is not None and last.kind is kind and _continues(last.deltas[-1], delta):
            last.deltas.append(delta)
            return
        self._last = part = _Open(kind, [delta])
        self._pieces += PART_WEIGHT
        if isinstance(delta, ToolCallDelta):
            self._calls[delta.position] = part
        self._parts.append(part)

    def seal(self) -> None:
        """The provider ended a block: what comes next begins a new part, even of the same kind."""
        self._last = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all has come."""
        return not self._parts

    @property
    def has_tool_calls(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    @property
    def characters(self) -> int:
        """Length of all texts, for an estimate of tokens."""
        return sum(len(part.text) if isinstance(part, TextPart | ReasoningPart) else len(str(part)) for part in self.content())

    def content(self) -> tuple[ContentPart, ...]:
        """The parts, each in full, in the order in which they began."""
        return tuple(_build(part) for part in self._parts)


def too_many_pieces(most: int) -> ProviderFault:
    """The fault of an answer in more pieces than it may have."""
    why = f"the answer has more than {most} pieces"
    return ProviderFault(Fault(code=ErrorCode.SERVER_ERROR, subreason=Subreason.EVENT_TOO_LARGE, message=why, retryable=True))


_TEXTS: dict[type, tuple[str, ...]] = {
    ReasoningDelta: ("text", "signature", "redacted_data", "id"),
    ToolCallDelta: ("id", "name", "arguments_delta", "signature"),
    RefusalDelta: ("refusal",),
}


def _make_storable(delta: Delta) -> None:
    """Mend the piece itself, so that chunks and content agree: databases refuse some characters, and the API what is too deep."""
    if isinstance(delta, TextDelta):  # as nearly all pieces are
        delta.text = storable_text(delta.text)
        return
    if isinstance(delta, ProviderDataDelta):
        delta.provider_data = storable_json(delta.provider_data)
        return
    for name in _TEXTS[type(delta)]:
        if text := getattr(delta, name):
            setattr(delta, name, storable_text(text))


def _continues(last: Any, following: Delta) -> bool:
    """Whether a piece belongs to the part that the last one of its kind belongs to."""
    if isinstance(following, ReasoningDelta):
        return not _ends(last, following)
    return not isinstance(following, ProviderDataDelta)


def _ends(last: ReasoningDelta, following: ReasoningDelta) -> bool:
    """A signature or encrypted data closes a piece of reasoning; a new id begins one."""
    closed = bool(last.signature or last.redacted_data) and bool(following.text or following.redacted_data)
    return closed or bool(following.redacted_data) or bool(following.id and last.id and following.id != last.id)


def _build(part: _Open) -> ContentPart:
    # model_construct: the pieces come from our own decoders, and an answer is not refused for what is in it.
    deltas = part.deltas
    first = deltas[0]
    match first:
        case TextDelta():
            return TextPart.model_construct(text="".join([d.text for d in deltas]))
        case RefusalDelta():
            return RefusalPart.model_construct(refusal="".join([d.refusal for d in deltas]))
        case ReasoningDelta():
            return ReasoningPart.model_construct(
                text="".join([d.text for d in deltas]),
                signature="".join([d.signature for d in deltas]),
                redacted_data="".join([d.redacted_data for d in deltas]),
                id=next((d.id for d in deltas if d.id), ""),
            )
        case ToolCallDelta():
            return ToolCallPart.model_construct(
                id=next((d.id for d in deltas if d.id), ""),
                name="".join([d.name for d in deltas]),
                arguments_json="".join([d.arguments_delta for d in deltas]),
                signature="".join([d.signature for d in deltas]),
            )
        case ProviderDataDelta():
            return ProviderDataPart.model_construct(provider_data=first.provider_data)
        case _:
            raise AssertionError(f"no part is made of {first}")
