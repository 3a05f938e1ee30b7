"""How generations end: results, errors, attempts and usage, between protobuf and the domain."""

from typing import Any

from headrace.v1 import error_pb2, usage_pb2
from headrace.v1 import result_pb2 as pb
from headrace_server.domain.errors import RateLimitInfo
from headrace_server.domain.result import Attempt, GenerationResult, ProviderError
from headrace_server.domain.usage import Usage
from headrace_server.domain.violations import Loc, validate
from headrace_server.rpc.codec_message import encode_part, part_fields
from headrace_server.rpc.codec_values import (
    ERROR_CODE,
    FINISH_REASON,
    REPLAY_SAFETY,
    STATE,
    USAGE_SOURCE,
    Wrong,
    int32,
    int64,
    maybe_duration,
    maybe_timestamp,
    millis_of_duration,
    millis_of_timestamp,
    timestamp_of,
    utf8,
)

# ---------------------------------------------------------------- to protobuf


def encode_usage(usage: Usage) -> usage_pb2.Usage:
    """Token counts in protobuf."""
    return usage_pb2.Usage(
        input_tokens=int32(usage.input_tokens),
        output_tokens=int32(usage.output_tokens),
        total_tokens=int32(usage.total_tokens),
        cached_input_tokens=int32(usage.cached_input_tokens),
        reasoning_tokens=int32(usage.reasoning_tokens),
        source=USAGE_SOURCE.numbers[usage.source],
    )


def encode_attempt(attempt: Attempt) -> pb.Attempt:
    """An attempt in protobuf; its error without attempts and partial."""
    return pb.Attempt(
        provider=utf8(attempt.provider),
        model=utf8(attempt.model),
        state=STATE.numbers[attempt.state],
        error=None if attempt.error is None else encode_bare_error(attempt.error),
        usage=None if attempt.usage is None else encode_usage(attempt.usage),
        start_time=timestamp_of(attempt.start_time),
        duration=maybe_duration(attempt.duration),
        replay_safety=REPLAY_SAFETY.numbers[attempt.replay_safety],
        provider_updated_at=maybe_timestamp(attempt.provider_updated_at),
    )


def encode_result(result: GenerationResult) -> pb.GenerationResult:
    """A result in protobuf."""
    fallback = result.fallback
    return pb.GenerationResult(
        content=[encode_part(part) for part in result.content],
        finish_reason=FINISH_REASON.numbers[result.finish_reason],
        native_finish_reason=utf8(result.native_finish_reason),
        usage=None if result.usage is None else encode_usage(result.usage),
        provider=utf8(result.provider),
        model=utf8(result.model),
        duration=maybe_duration(result.duration),
        first_token_latency=maybe_duration(result.first_token_latency),
        attempts=[encode_attempt(attempt) for attempt in result.attempts],
        fallback=None
        if fallback is None
        else pb.FallbackInfo(provider=utf8(fallback.provider), model=utf8(fallback.model), reason=utf8(fallback.reason)),
        cost=None if result.cost is None else int64(result.cost),
    )


def encode_error(error: ProviderError) -> pb.ProviderError:
    """An error in protobuf, whole."""
    message = encode_bare_error(error)
    message.attempts.extend([encode_attempt(attempt) for attempt in error.attempts])
    if error.partial is not None:
        message.partial.CopyFrom(encode_result(error.partial))
    return message


def encode_bare_error(error: ProviderError) -> pb.ProviderError:
    """An error in protobuf without attempts and partial."""
    return pb.ProviderError(
        request_id=utf8(error.request_id),
        message=utf8(error.message),
        code=ERROR_CODE.numbers[error.code],
        subreason=utf8(error.subreason),
        provider=utf8(error.provider),
        http_status=error.http_status,
        provider_type=utf8(error.provider_type),
        provider_code=utf8(error.provider_code),
        retryable=error.retryable,
        rate_limit=None if error.rate_limit is None else encode_rate_limit(error.rate_limit),
        field_violations=[pb.FieldViolation(field=utf8(v.field), description=utf8(v.description)) for v in error.field_violations],
        provider_request_id=utf8(error.provider_request_id),
        provider_text=utf8(error.provider_text),
    )


def encode_rate_limit(info: RateLimitInfo) -> error_pb2.RateLimitInfo:
    """What is known of a limit, in protobuf."""
    return error_pb2.RateLimitInfo(
        retry_after=maybe_duration(info.retry_after),
        limit=None if info.limit is None else int64(info.limit),
        remaining=None if info.remaining is None else int64(info.remaining),
        reset_time=maybe_timestamp(info.reset_time),
    )


# ---------------------------------------------------------------- from protobuf


def decode_result(message: pb.GenerationResult) -> GenerationResult:
    """The domain result. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    return validate(GenerationResult.model_validate, result_fields(message, (), wrong), wrong, "the result is not valid")


def decode_error(message: pb.ProviderError) -> ProviderError:
    """The domain error. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    return validate(ProviderError.model_validate, error_fields(message, (), wrong), wrong, "the error is not valid")


def decode_attempt(message: pb.Attempt) -> Attempt:
    """The domain attempt. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    return validate(Attempt.model_validate, _attempt_fields(message, (), wrong), wrong, "the attempt is not valid")


def decode_usage(message: usage_pb2.Usage) -> Usage:
    """The domain token counts. Raises a Refusal that names every wrong field."""
    return validate(Usage.model_validate, _usage_fields(message), (), "the usage is not valid")


def result_fields(message: pb.GenerationResult, at: Loc, wrong: Wrong) -> dict[str, Any]:
    """A result as the fields of its domain type."""
    fields: dict[str, Any] = {
        "content": [part_fields(part, (*at, "content", i), wrong) for i, part in enumerate(message.content)],
        "finish_reason": FINISH_REASON.member(message.finish_reason),
        "native_finish_reason": message.native_finish_reason,
        "provider": message.provider,
        "model": message.model,
        "attempts": [_attempt_fields(attempt, (*at, "attempts", i), wrong) for i, attempt in enumerate(message.attempts)],
    }
    if message.HasField("usage"):
        fields["usage"] = _usage_fields(message.usage)
    for name in ("duration", "first_token_latency"):
        if message.HasField(name):
            fields[name] = millis_of_duration(getattr(message, name), (*at, name), wrong)
    if message.HasField("fallback"):
        fallback = message.fallback
        fields["fallback"] = {"provider": fallback.provider, "model": fallback.model, "reason": fallback.reason}
    if message.HasField("cost"):
        fields["cost"] = message.cost
    return fields


def error_fields(message: pb.ProviderError, at: Loc, wrong: Wrong) -> dict[str, Any]:
    """An error as the fields of its domain type."""
    fields = _bare_error_fields(message, at, wrong)
    fields["attempts"] = [_attempt_fields(attempt, (*at, "attempts", i), wrong) for i, attempt in enumerate(message.attempts)]
    if message.HasField("partial"):
        fields["partial"] = result_fields(message.partial, (*at, "partial"), wrong)
    return fields


def _bare_error_fields(message: pb.ProviderError, at: Loc, wrong: Wrong) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **ERROR_CODE.required("code", message.code),
        "request_id": message.request_id,
        "message": message.message,
        "subreason": message.subreason,
        "provider": message.provider,
        "http_status": message.http_status,
        "provider_type": message.provider_type,
        "provider_code": message.provider_code,
        "retryable": message.retryable,
        "field_violations": [{"field": v.field, "description": v.description} for v in message.field_violations],
        "provider_request_id": message.provider_request_id,
        "provider_text": message.provider_text,
    }
    if message.HasField("rate_limit"):
        fields["rate_limit"] = _rate_limit_fields(message.rate_limit, (*at, "rate_limit"), wrong)
    return fields


def _attempt_fields(message: pb.Attempt, at: Loc, wrong: Wrong) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **STATE.required("state", message.state),
        "provider": message.provider,
        "model": message.model,
        "replay_safety": REPLAY_SAFETY.member(message.replay_safety),
    }
    if message.HasField("error"):
        fields["error"] = _bare_error_fields(message.error, (*at, "error"), wrong)
        if message.error.attempts:
            wrong.append(((*at, "error", "attempts"), "must not be set in the error of an attempt"))
        if message.error.HasField("partial"):
            wrong.append(((*at, "error", "partial"), "must not be set in the error of an attempt"))
    if message.HasField("usage"):
        fields["usage"] = _usage_fields(message.usage)
    if message.HasField("start_time"):
        fields["start_time"] = millis_of_timestamp(message.start_time, (*at, "start_time"), wrong) or 0
    if message.HasField("provider_updated_at"):
        place = (*at, "provider_updated_at")
        fields["provider_updated_at"] = millis_of_timestamp(message.provider_updated_at, place, wrong)
    if message.HasField("duration"):
        fields["duration"] = millis_of_duration(message.duration, (*at, "duration"), wrong)
    return fields


def _usage_fields(message: usage_pb2.Usage) -> dict[str, Any]:
    return {
        "input_tokens": message.input_tokens,
        "output_tokens": message.output_tokens,
        "total_tokens": message.total_tokens,
        "cached_input_tokens": message.cached_input_tokens,
        "reasoning_tokens": message.reasoning_tokens,
        "source": USAGE_SOURCE.member(message.source),
    }


def _rate_limit_fields(message: error_pb2.RateLimitInfo, at: Loc, wrong: Wrong) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if message.HasField("retry_after"):
        fields["retry_after"] = millis_of_duration(message.retry_after, (*at, "retry_after"), wrong)
    for name in ("limit", "remaining"):
        if message.HasField(name):
            fields[name] = getattr(message, name)
    if message.HasField("reset_time"):
        fields["reset_time"] = millis_of_timestamp(message.reset_time, (*at, "reset_time"), wrong)
    return fields
