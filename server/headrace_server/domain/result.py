"""How a generation ends. Results and errors refer to one another and so share this file."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from headrace_server.domain.base import Count, Millis, Model, Text
from headrace_server.domain.errors import ErrorCode, RateLimitInfo, ReplaySafety, Violation
from headrace_server.domain.lifecycle import State
from headrace_server.domain.message import ContentPart
from headrace_server.domain.usage import Usage


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"


class FallbackInfo(Model):
    """The provider that stood in for the first one, and why."""

    provider: str
    model: str
    reason: Text = ""


class Attempt(Model):
    """One call of one provider. Its error carries neither attempts nor partial."""

    provider: str
    model: str
    state: State
    error: "ProviderError | None" = None
    usage: Usage | None = None
    start_time: Millis
    duration: Millis | None = None
    replay_safety: ReplaySafety | None = None
    provider_updated_at: Millis | None = None
    """Which settings of the provider it was made with: `updated_at` of its row as it stood then."""


class GenerationResult(Model):
    """A whole answer, or, in `ProviderError.partial`, what there was of one."""

    type: Literal["result"] = "result"
    content: tuple[ContentPart, ...] = ()
    finish_reason: FinishReason | None = None
    native_finish_reason: Text = ""
    usage: Usage | None = None
    provider: str = ""
    model: Text = ""
    duration: Millis | None = None
    first_token_latency: Millis | None = None
    attempts: tuple[Attempt, ...] = ()
    fallback: FallbackInfo | None = None
    cost: int | None = None


class ProviderError(Model):
    """Why a generation failed."""

    request_id: str = ""
    message: Text = ""
    code: ErrorCode
    subreason: str = ""
    provider: str = ""
    http_status: Annotated[Count, Field(le=999)] = 0
    provider_type: Text = ""
    provider_code: Text = ""
    retryable: bool = False
    rate_limit: RateLimitInfo | None = None
    attempts: tuple[Attempt, ...] = ()
    partial: GenerationResult | None = None
    field_violations: tuple[Violation, ...] = ()
    provider_request_id: Text = ""
    provider_text: Text = ""
    """The provider's whole answer, redacted, cut at 64 KB. Only in the attempts of a record."""


def told(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    """Attempts as callers are told of them: the provider's whole texts stay in the record."""
    return tuple(
        attempt
        if attempt.error is None or not attempt.error.provider_text
        else attempt.model_copy(update={"error": attempt.error.model_copy(update={"provider_text": ""})})
        for attempt in attempts
    )


def is_retryable_error(error: ProviderError) -> bool:
    """Whether the same request may succeed later."""
    return error.retryable


Attempt.model_rebuild()
GenerationResult.model_rebuild()
