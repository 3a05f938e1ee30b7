"""What flows from a provider to a caller.

Deltas are what a decoder reads out of a provider's bytes; chunks are what readers get. Both are made once per piece of an answer
and are therefore plain slotted dataclasses: `pydantic.TypeAdapter(StreamChunk)` checks them where a boundary asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from headrace_server.domain.lifecycle import Transition
from headrace_server.domain.result import FinishReason, GenerationResult, ProviderError

_NO_OTHER_FIELDS = ConfigDict(extra="forbid")
"""Without it a delta with a mistake in it would pass for another kind of delta that lacks the field."""


@dataclass(slots=True)
class TextDelta:
    """A piece of text."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    text: str


@dataclass(slots=True, kw_only=True)
class ReasoningDelta:
    """A piece of reasoning: a piece of its text, or a signature, encrypted data or id for the whole of it."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    text: str = ""
    signature: str = ""
    redacted_data: str = ""
    id: str = ""


@dataclass(slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of the call at `position` (0, 1, …); id and name come with its first piece."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    position: Annotated[int, Field(ge=0)]
    id: str = ""
    name: str = ""
    arguments_delta: str = ""
    signature: str = ""


@dataclass(slots=True)
class RefusalDelta:
    """A piece of a refusal."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    refusal: str


@dataclass(slots=True)
class ProviderDataDelta:
    """A part that the API does not model."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    provider_data: dict[str, Any]


Delta = TextDelta | ReasoningDelta | ToolCallDelta | RefusalDelta | ProviderDataDelta
"""A piece of an answer, as decoded."""


@dataclass(slots=True, kw_only=True)
class StreamChunk:
    """A piece of an answer, as readers get it. `delta` is None in one that only tells the finish reason."""

    __pydantic_config__ = _NO_OTHER_FIELDS

    index: Annotated[int, Field(ge=0)]
    delta: Delta | None
    attempt: Annotated[int, Field(ge=1)]
    finish_reason: FinishReason | None = None
    merged: Annotated[int, Field(ge=0)] = 1
    received: int | None = None
    """When its first byte was read, in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discontinuity:
    """What follows replaces the chunks from `discard_from_index` on."""

    attempt: int
    provider: str
    model: str
    discard_from_index: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole answer. Last event of a generation that succeeded."""

    result: GenerationResult


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no whole answer. Last event of a generation that failed."""

    error: ProviderError


GenerationEvent = Transition | StreamChunk | Discontinuity | Completed | Failed
"""What a generation tells its readers."""


def merge(deltas: Sequence[Delta]) -> list[tuple[Delta, int]]:
    """Join neighbours of one kind: each joined delta with how many it holds. Nothing is lost or reordered."""
    texts = [delta.text for delta in deltas if type(delta) is TextDelta]
    if len(texts) == len(deltas):  # as nearly always
        return [(TextDelta("".join(texts)), len(texts))] if texts else []
    merged: list[tuple[Delta, int]] = []
    run: list[Delta] = []
    for delta in deltas:
        if run and not _joins(run[-1], delta):
            merged.append((_join(run), len(run)))
            run = []
        run.append(delta)
    if run:
        merged.append((_join(run), len(run)))
    return merged


def _joins(a: Delta, b: Delta) -> bool:
    match a, b:
        case (TextDelta(), TextDelta()) | (RefusalDelta(), RefusalDelta()):
            return True
        case ReasoningDelta(), ReasoningDelta():
            return not (a.signature or a.redacted_data or a.id or b.signature or b.redacted_data or b.id)
        case ToolCallDelta(), ToolCallDelta():
            return a.position == b.position and not (a.signature or b.id or b.name or b.signature)
        case _:
            return False


def _join(run: list[Delta]) -> Delta:
    first = run[0]
    if len(run) == 1:
        return first
    match first:
        case TextDelta():
            return TextDelta("".join([d.text for d in run]))  # type: ignore[union-attr]
        case RefusalDelta():
            return RefusalDelta("".join([d.refusal for d in run]))  # type: ignore[union-attr]
        case ReasoningDelta():
            return ReasoningDelta(text="".join([d.text for d in run]))  # type: ignore[union-attr]
        case ToolCallDelta():
            arguments = "".join([d.arguments_delta for d in run])  # type: ignore[union-attr]
            return ToolCallDelta(position=first.position, id=first.id, name=first.name, arguments_delta=arguments)
        case _:
            raise AssertionError(f"{first} joins nothing")
