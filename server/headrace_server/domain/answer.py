"""An answer as it grows: decoders put pieces in, the engine takes the whole (or what there is of it) out.

Pieces are only appended; texts are joined once, when the content is asked for.
"""

from dataclasses import dataclass, field
from typing import Any

from headrace_server.domain.base import storable_json
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ContentPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage


@dataclass(slots=True)
class _Open:
    """A part that is still growing: the deltas of one text, one piece of reasoning, one tool call or one refusal."""

    kind: type
    key: object
    deltas: list[Any] = field(default_factory=list)


class Answer:
    """What a provider has said so far. `usage`, `model` and the finish are set by the decoder as it learns them."""

    __slots__ = ("_parts", "_sealed", "finish_reason", "model", "native_finish_reason", "provider_request_id", "usage")

    def __init__(self) -> None:
        self._parts: list[_Open] = []
        self._sealed = False
        self.model = ""
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.native_finish_reason = ""
        self.provider_request_id = ""

    def add(self, delta: Delta) -> None:
        """Append a piece. Neighbours of one kind grow the same part; calls grow by position, wherever they stand."""
        _make_storable(delta)
        kind = type(delta)
        key = delta.position if isinstance(delta, ToolCallDelta) else None
        if isinstance(delta, ToolCallDelta):
            for part in reversed(self._parts):
                if part.kind is kind and part.key == key:
                    part.deltas.append(delta)
                    return
        elif self._parts and not self._sealed and not isinstance(delta, ProviderDataDelta):
            last = self._parts[-1]
            if last.kind is kind and not (isinstance(delta, ReasoningDelta) and _ends(last.deltas[-1], delta)):
                last.deltas.append(delta)
                return
        self._parts.append(_Open(kind, key, [delta]))
        self._sealed = False

    def seal(self) -> None:
        """The provider ended a block: what comes next begins a new part, even of the same kind."""
        self._sealed = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all has come."""
        return not self._parts

    @property
    def has_tool_calls(self) -> bool:
        """Whether a tool is called."""
        return any(part.kind is ToolCallDelta for part in self._parts)

    @property
    def characters(self) -> int:
        """Length of all texts, for an estimate of tokens."""
        return sum(len(part.text) if isinstance(part, TextPart | ReasoningPart) else len(str(part)) for part in self.content())

    def content(self) -> tuple[ContentPart, ...]:
        """The parts, each in full, in the order in which they began."""
        return tuple(_build(part) for part in self._parts)


def _make_storable(delta: Delta) -> None:
    """Show the character NUL as U+FFFD, in the piece itself, so that chunks and content agree: databases refuse it.

    What a provider says in its own words is made as shallow as the API allows, for the same reason.
    """
    match delta:
        case TextDelta() if "\0" in delta.text:
            delta.text = delta.text.replace("\0", "\ufffd")
        case ReasoningDelta() if "\0" in delta.text:
            delta.text = delta.text.replace("\0", "\ufffd")
        case RefusalDelta() if "\0" in delta.refusal:
            delta.refusal = delta.refusal.replace("\0", "\ufffd")
        case ToolCallDelta() if "\0" in delta.arguments_delta:
            delta.arguments_delta = delta.arguments_delta.replace("\0", "\ufffd")
        case ProviderDataDelta():
            delta.provider_data = storable_json(delta.provider_data)


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
