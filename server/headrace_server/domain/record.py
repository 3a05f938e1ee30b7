"""The rows that a request leaves: one in provider_logs, one in provider_metrics for each provider that was tried."""

from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter

from headrace_server.domain.base import Count, Millis, Model, Text, Uuid, Word
from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.lifecycle import State, Transition
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, GenerationResult, ProviderError
from headrace_server.domain.usage import UsageSource

MaybeProvider = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]{0,62})?$")]
"""A provider's name, or nothing while none is chosen."""


class UnreadRequest(Model):
    """What was sent where it could not be read as a request; kept so that nothing is hidden."""

    unread: JsonValue


AnyRequest = Annotated[GenerateRequest | UnreadRequest, Field(union_mode="left_to_right")]
"""What was sent. They share no field, so one that fits is the one: by default pydantic would look at both, and twice."""


class LogRow(Model):
    """A row of provider_logs: one request, from acceptance to its end."""

    id: Uuid
    request_id: Uuid
    conversation_id: Uuid | None = None
    user_id: Word = ""
    provider: MaybeProvider = ""
    model: Text = ""
    state: State
    request_data: AnyRequest | None = None
    response_data: GenerationResult | None = None
    """The answer; of a failed request what there was of one."""
    error: ProviderError | None = None
    """The whole error, without `partial` and `attempts`, which stand in columns of their own. Column `error_data`."""
    error_message: Text | None = None
    error_code: ErrorCode | None = None
    start_time: Millis
    end_time: Millis | None = None
    duration: Millis | None = None
    retry_attempt: Count = 0
    """Provider calls after the first."""
    tags: tuple[Word, ...] = ()
    request_fingerprint: str = ""
    attempts: tuple[Attempt, ...] = ()
    transitions: tuple[Transition, ...] = ()
    trace_id: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    owner: Text = ""
    node: str = ""
    created_at: Millis
    updated_at: Millis


class MetricsRow(Model):
    """A row of provider_metrics: one provider that was tried in a request."""

    id: Uuid
    request_id: Uuid
    provider: str
    model: Text
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    cached_input_tokens: Count = 0
    reasoning_tokens: Count = 0
    usage_source: UsageSource | None = None
    cost_micro_usd: int | None = None
    first_token_latency: Millis | None = None
    total_duration: Millis | None = None
    chunks_received: Count = 0
    retry_count: Count = 0
    """Calls of this provider after its first."""
    is_fallback: bool = False
    fallback_provider: str | None = None
    """The provider that stood in for this one, where one did."""
    success: bool
    created_at: Millis


class RequestQuery(Model):
    """Which requests to list, newest first. Everything that is set must hold."""

    page_size: Annotated[int, Field(ge=1, le=1_000)] = 50
    before: tuple[Millis, str] | None = None
    """Go on behind this row: its created_at and id."""
    state: State | None = None
    provider: str | None = None
    model: str | None = None
    user_id: str | None = None
    conversation_id: str | None = None
    tag: str | None = None
    start_time: Millis | None = None
    end_time: Millis | None = None
    error_code: ErrorCode | None = None


TransitionsJson: TypeAdapter[tuple[Transition, ...]] = TypeAdapter(tuple[Transition, ...])
AttemptsJson: TypeAdapter[tuple[Attempt, ...]] = TypeAdapter(tuple[Attempt, ...])
