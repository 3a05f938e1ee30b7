"""The one map from domain errors to the status of an RPC, with the details that google.rpc defines.

gRPC replaces a status that is too large by an error of its own, so everything here is bounded: the message by 1 KB as it goes over the
wire, the whole status by 4 KB. What goes first is what the caller finds elsewhere. The partial answer and the violations inside the
ProviderError never come along; short texts (a model, a provider's own code) are cut at fixed lengths. Then the room that is left is given
to the violations of BadRequest, in order, and after them to the attempts, the last one first. The whole error is in the `failed` event
and in the record.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from headrace_server.domain.errors import ErrorCode, Subreason, Violation
from headrace_server.domain.result import Attempt, ProviderError
from headrace_server.rpc.codec_result import encode_attempt, encode_bare_error
from headrace_server.rpc.codec_values import duration_of, utf8

DOMAIN = "headrace.dev"

MAX_MESSAGE = 1_000
"""Bytes of a status message, percent-encoded as gRPC sends it."""
MAX_STATUS = 4_000
"""Bytes of a whole status."""

_MAX_SENTENCE = 200
_MAX_MODEL = 96
_MAX_WORD = 64

_S = grpc.StatusCode

STATUS: Mapping[tuple[ErrorCode, str], grpc.StatusCode] = {
    (ErrorCode.AUTHENTICATION_ERROR, ""): _S.FAILED_PRECONDITION,
    (ErrorCode.AUTHENTICATION_ERROR, Subreason.UNAUTHENTICATED): _S.UNAUTHENTICATED,
    (ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION_DENIED): _S.PERMISSION_DENIED,
    (ErrorCode.INVALID_REQUEST, ""): _S.INVALID_ARGUMENT,
    (ErrorCode.INVALID_REQUEST, Subreason.ALREADY_EXISTS): _S.ALREADY_EXISTS,
    (ErrorCode.INVALID_REQUEST, Subreason.REQUEST_NOT_FOUND): _S.NOT_FOUND,
    (ErrorCode.INVALID_REQUEST, Subreason.PROVIDER_NOT_FOUND): _S.NOT_FOUND,
    (ErrorCode.INVALID_REQUEST, Subreason.PROVIDER_IN_FILE): _S.FAILED_PRECONDITION,
    (ErrorCode.INVALID_REQUEST, Subreason.PROVIDER_IN_USE): _S.FAILED_PRECONDITION,
    (ErrorCode.INVALID_REQUEST, Subreason.PROVIDER_DISABLED): _S.FAILED_PRECONDITION,
    (ErrorCode.INVALID_REQUEST, Subreason.OUT_OF_RANGE): _S.OUT_OF_RANGE,
    (ErrorCode.RATE_LIMIT_EXCEEDED, ""): _S.RESOURCE_EXHAUSTED,
    (ErrorCode.SERVER_ERROR, ""): _S.UNAVAILABLE,
    (ErrorCode.TIMEOUT, ""): _S.DEADLINE_EXCEEDED,
    (ErrorCode.NETWORK_ERROR, ""): _S.UNAVAILABLE,
    (ErrorCode.CONTENT_FILTER, ""): _S.INVALID_ARGUMENT,
    (ErrorCode.MODEL_NOT_FOUND, ""): _S.NOT_FOUND,
    (ErrorCode.QUOTA_EXCEEDED, ""): _S.RESOURCE_EXHAUSTED,
    (ErrorCode.UNKNOWN_ERROR, ""): _S.UNKNOWN,
    (ErrorCode.UNKNOWN_ERROR, Subreason.INTERNAL): _S.INTERNAL,
    (ErrorCode.CANCELLED, ""): _S.CANCELLED,
    (ErrorCode.INTERRUPTED, ""): _S.UNAVAILABLE,
}
"""By code and subreason; a pair that is not here has the status of its code."""

_OUR_OWN = frozenset(
    {
        *(Subreason.ALREADY_EXISTS, Subreason.REQUEST_NOT_FOUND, Subreason.PROVIDER_NOT_FOUND, Subreason.PROVIDER_IN_FILE),
        *(Subreason.PROVIDER_IN_USE, Subreason.PROVIDER_DISABLED, Subreason.NO_API_KEY, Subreason.OUT_OF_RANGE, Subreason.QUEUE_FULL),
        *(Subreason.TOO_MANY_IN_FLIGHT, Subreason.SHUTTING_DOWN, Subreason.STORAGE, Subreason.CIRCUIT_OPEN, Subreason.SLOW_CLIENT),
        *(Subreason.UNAUTHENTICATED, Subreason.PERMISSION_DENIED, Subreason.INTERNAL),
    }
)
_LIMITS = frozenset({ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.QUOTA_EXCEEDED})
_OF_THE_REQUEST = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.CONTENT_FILTER})
_MAY_PASS = frozenset({ErrorCode.SERVER_ERROR, ErrorCode.NETWORK_ERROR, ErrorCode.INTERRUPTED})


class BrokenMessage(Exception):
    """Bytes that are not a message of the expected type. Its text is safe to show."""

    def __init__(self, type_name: str) -> None:
        super().__init__(f"the message could not be read as a {type_name}")


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: ProviderError, *, delivered_chunks: int | None = None) -> None:
    """End an RPC, at its begin or after messages, with the status of an error. Never returns: raises grpc.aio.AbortError."""
    status = to_status(error, delivered_chunks=delivered_chunks)
    details = ("grpc-status-details-bin", status.SerializeToString())
    await end(context, status_code(error), status.message, (details, *trailers(error)))


async def end(
    context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, message: str, trailing_metadata: tuple[Any, ...] = ()
) -> None:
    """End an RPC with this status. Never returns: raises grpc.aio.AbortError."""
    try:
        await context.abort(code, message, trailing_metadata)
    except grpc.aio.AbortError as error:
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(partial(_forget_the_way, error))
        raise


def _forget_the_way(error: BaseException, _: object) -> None:
    """gRPC keeps the error with the RPC, and its traceback holds the RPC: that circle would be left to the garbage collector."""
    error.__traceback__ = error.__context__ = None


def status_code(error: ProviderError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return STATUS.get((error.code, error.subreason)) or STATUS[error.code, ""]


def trailers(error: ProviderError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata besides the details. After attempts of our own a client's retry policy must not multiply them."""
    return (("grpc-retry-pushback-ms", "-1"),) if error.attempts else ()


def to_status(error: ProviderError, *, delivered_chunks: int | None = None) -> status_pb2.Status:
    """The status of an error with its details, within the bounds. `delivered_chunks`: how many the caller has had, where it is known."""
    status = status_pb2.Status(code=status_code(error).value[0], message=_message(error.message))
    details: list[Message] = [_error_info(error, delivered_chunks)]
    if (retry := _retry_info(error)) is not None:
        details.append(retry)
    if error.code in _LIMITS:
        details.append(_quota_failure(error))
    if (resource := _resource_info(error)) is not None:
        details.append(resource)
    bare = _bare(error)
    room = MAX_STATUS - status.ByteSize() - sum(_size_as_detail(detail) for detail in (*details, bare))
    if status.code == _S.INVALID_ARGUMENT.value[0] and error.code in _OF_THE_REQUEST:
        bad_request = _bad_request(error, room)
        room -= _size_as_detail(bad_request)
        details.append(bad_request)
    bare.attempts.extend(_last_attempts(error, room))
    for detail in (*details, bare):
        status.details.add().Pack(detail)
    return status


# ---------------------------------------------------------------- details


def _error_info(error: ProviderError, delivered_chunks: int | None) -> error_details_pb2.ErrorInfo:
    reset = error.rate_limit.reset_time if error.rate_limit else None
    metadata = {
        "subreason": _cut(error.subreason, _MAX_WORD),
        "origin": "gateway" if _is_our_own(error) else "provider",
        "provider": _cut(error.provider, _MAX_WORD),
        "model": _cut(_model(error), _MAX_MODEL),
        "http_status": str(error.http_status or ""),
        "provider_type": _cut(error.provider_type, _MAX_WORD),
        "provider_code": _cut(error.provider_code, _MAX_WORD),
        "provider_request_id": _cut(error.provider_request_id, _MAX_WORD),
        "attempts": str(len(error.attempts)),
        "retryable": str(error.retryable).lower(),
        "delivered_chunks": "" if delivered_chunks is None else str(delivered_chunks),
        "reset_at": "" if reset is None else _iso(reset),
        "request_id": _cut(error.request_id, _MAX_WORD),
    }
    return error_details_pb2.ErrorInfo(
        reason=error.code.value.upper(), domain=DOMAIN, metadata={key: value for key, value in metadata.items() if value}
    )


def _is_our_own(error: ProviderError) -> bool:
    """Whether Headrace itself refused or ended it, as against a provider or the way to it."""
    if error.subreason in _OUR_OWN or error.code in (ErrorCode.CANCELLED, ErrorCode.INTERRUPTED):
        return True
    answered = error.http_status or error.provider_type or error.provider_code
    return not answered and error.code in (ErrorCode.INVALID_REQUEST, ErrorCode.RATE_LIMIT_EXCEEDED)


def _retry_info(error: ProviderError) -> error_details_pb2.RetryInfo | None:
    delay = error.rate_limit.retry_after if error.rate_limit else None
    if delay is None or error.subreason == Subreason.NEVER_FITS or error.code not in _LIMITS | _MAY_PASS:
        return None
    return error_details_pb2.RetryInfo(retry_delay=duration_of(delay))


def _quota_failure(error: ProviderError) -> error_details_pb2.QuotaFailure:
    subject = "/".join(part for part in (_cut(error.provider, _MAX_WORD), _cut(_model(error), _MAX_MODEL)) if part)
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=_cut(error.message, _MAX_SENTENCE))
    return error_details_pb2.QuotaFailure(violations=[violation])


def _resource_info(error: ProviderError) -> error_details_pb2.ResourceInfo | None:
    if error.code is ErrorCode.MODEL_NOT_FOUND:
        kind, name, owner = "model", _cut(_model(error), _MAX_MODEL), _cut(error.provider, _MAX_WORD)
    elif error.subreason == Subreason.REQUEST_NOT_FOUND or (error.subreason == Subreason.ALREADY_EXISTS and error.request_id):
        kind, name, owner = "request", _cut(error.request_id, _MAX_WORD), ""
    elif error.subreason == Subreason.PROVIDER_NOT_FOUND:
        kind, name, owner = "provider", _cut(error.provider, _MAX_WORD), ""
    else:
        return None
    return error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, owner=owner)


def _bad_request(error: ProviderError, room: int) -> error_details_pb2.BadRequest:
    """The wrong fields, as many as there is room for, and how many more there are."""
    bad_request = error_details_pb2.BadRequest()
    violations = error.field_violations
    for number, violation in enumerate(violations):
        bad_request.field_violations.append(_field_violation(violation))
        left = len(violations) - number - 1
        if _size_as_detail(bad_request) + (_ROOM_FOR_MORE if left else 0) > room:
            del bad_request.field_violations[-1]
            more = f"{left + 1} more fields are wrong; the failed event and the record name them"
            bad_request.field_violations.add(description=more)
            break
    if not violations:
        # A provider that refuses a request often does not say which field it means.
        bad_request.field_violations.add(description=_cut(error.message, _MAX_SENTENCE))
    return bad_request


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(
        field=_cut(violation.field, _MAX_SENTENCE), description=_cut(violation.description, _MAX_SENTENCE)
    )


def _bare(error: ProviderError) -> Any:
    """The error itself without attempts, partial and violations, its texts cut."""
    return encode_bare_error(
        error.model_copy(
            update={
                "request_id": _cut(error.request_id, _MAX_WORD),
                "message": _cut(error.message, _MAX_SENTENCE),
                "subreason": _cut(error.subreason, _MAX_WORD),
                "provider": _cut(error.provider, _MAX_WORD),
                "provider_type": _cut(error.provider_type, _MAX_WORD),
                "provider_code": _cut(error.provider_code, _MAX_WORD),
                "provider_request_id": _cut(error.provider_request_id, _MAX_WORD),
                "provider_text": "",
                "field_violations": (),
            }
        )
    )


def _last_attempts(error: ProviderError, room: int) -> list[Any]:
    """The attempts from the last one back, as many as there is room for; in order."""
    kept: list[Any] = []
    for attempt in reversed(error.attempts):
        message = encode_attempt(_trimmed(attempt))
        room -= message.ByteSize() + _FRAME
        if room < 0:
            break
        kept.append(message)
    return kept[::-1]


def _trimmed(attempt: Attempt) -> Attempt:
    error = attempt.error
    if error is not None:
        words = {
            "request_id": "",
            "message": _cut(error.message, _MAX_WORD),
            "subreason": _cut(error.subreason, _MAX_WORD),
            "provider": "",
            "provider_type": _cut(error.provider_type, _MAX_WORD),
            "provider_code": _cut(error.provider_code, _MAX_WORD),
            "provider_request_id": _cut(error.provider_request_id, _MAX_WORD),
            "provider_text": "",
            "field_violations": (),
        }
        error = error.model_copy(update=words)
    return attempt.model_copy(
        update={
            "provider": _cut(attempt.provider, _MAX_WORD),
            "model": _cut(attempt.model, _MAX_MODEL),
            "error": error,
            "provider_updated_at": None,
        }
    )


# ---------------------------------------------------------------- sizes and texts

_FRAME = 4
"""Most bytes of tag and length around a message of less than 4 KB, and what the length of the one around it may grow by."""

_ROOM_FOR_MORE = 100


def _size_as_detail(detail: Message) -> int:
    """Bytes of a message packed as a detail."""
    return detail.ByteSize() + len("type.googleapis.com/") + len(detail.DESCRIPTOR.full_name) + 3 * _FRAME


def _model(error: ProviderError) -> str:
    if error.attempts:
        return error.attempts[-1].model
    return error.partial.model if error.partial else ""


def _iso(millis: int) -> str:
    try:
        return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


def _message(text: str) -> str:
    """A text as a status message: gRPC percent-encodes what is not printable ASCII, and that is what counts."""
    shown = utf8(text[: MAX_MESSAGE + 1])
    if len(quote(shown, safe=_PRINTABLE)) <= MAX_MESSAGE:
        return shown
    low, high = 0, len(shown)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(quote(shown[:middle] + "…", safe=_PRINTABLE)) <= MAX_MESSAGE
        low, high = (middle, high) if fits else (low, middle - 1)
    return shown[:low] + "…"


_PRINTABLE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def _cut(text: str, most: int) -> str:
    """A text of at most so many bytes."""
    raw = utf8(text[: most + 1]).encode()
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "…"
