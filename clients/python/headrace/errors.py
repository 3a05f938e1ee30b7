"""What can go wrong, as exceptions. They carry the service's own account of it; only the names are of Python's making.

try:
    answer = client.generate("…")
except headrace.RateLimited as error:
    print(error.retry_after)
except headrace.HeadraceError as error:
    print(error.code, error.subreason, error)
"""

from collections.abc import Sequence
from typing import Any

import grpc

from headrace._details import Details, read_details
from headrace.answer import Answer, enum_word
from headrace.v1.error_pb2 import ErrorCode
from headrace.v1.result_pb2 import Attempt, FieldViolation, ProviderError


class HeadraceError(Exception):
    """Why there is no whole answer."""

    def __init__(self, error: ProviderError, details: Details | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        """The service's account. As a status of an RPC it comes without `partial`, and with its attempts trimmed."""
        self._details = details or Details()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.error, self._details)

    @property
    def message(self) -> str:
        """What happened, for people."""
        return self.error.message

    @property
    def code(self) -> str:
        """What happened, for programs: `rate_limit_exceeded`, `server_error`, … (see ErrorCode); empty where the service did not say."""
        return enum_word(ErrorCode, self.error.code)

    @property
    def subreason(self) -> str:
        """A finer word within the code, such as `CONTEXT_LENGTH`; empty where there is none."""
        return self.error.subreason

    @property
    def request_id(self) -> str:
        """Id of the request, by which its record is found; may be empty."""
        return self.error.request_id

    @property
    def provider(self) -> str:
        """Name of the provider; empty where none was involved."""
        return self.error.provider

    @property
    def http_status(self) -> int:
        """HTTP status of the provider's answer; 0 where there was none."""
        return self.error.http_status

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, under a new id. The service has used its own attempts already."""
        return self.error.retryable

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before a new try, where they are known."""
        if self._details.retry_after is None and self.error.rate_limit.HasField("retry_after"):
            return self.error.rate_limit.retry_after.ToNanoseconds() / 1e9
        return self._details.retry_after

    @property
    def field_violations(self) -> Sequence[FieldViolation]:
        """The wrong fields, all of them, where the request itself is to blame."""
        return tuple(self.error.field_violations) or self._details.field_violations

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Every call of a provider, in order."""
        return self.error.attempts

    @property
    def partial(self) -> Answer | None:
        """What was delivered before it failed, with the usage known so far; only of a stream."""
        return Answer(self.error.request_id, self.error.partial) if self.error.HasField("partial") else None

    @property
    def is_safe_to_repeat(self) -> bool:
        """Whether the same request may be sent again under the same id, because nothing was done for it yet."""
        return False


class InvalidRequest(HeadraceError):
    """The request is wrong: see `field_violations`. Also an id that exists already, with other content (subreason ALREADY_EXISTS)."""


class NotFound(InvalidRequest):
    """There is no such request, or no such provider."""


class ModelNotFound(HeadraceError):
    """The provider does not know the model."""


class AuthenticationFailed(HeadraceError):
    """The provider refuses the service's key; with subreason UNAUTHENTICATED or PERMISSION_DENIED the service refuses our token."""


class ContentFiltered(HeadraceError):
    """The provider refused the prompt."""


class RateLimited(HeadraceError):
    """A limit over a short window was hit: see `retry_after`."""


class QuotaExceeded(HeadraceError):
    """Money, or a daily quota, is used up."""


class TimedOut(HeadraceError, TimeoutError):
    """It took longer than it may."""


class Cancelled(HeadraceError):
    """It was cancelled."""


class Unavailable(HeadraceError):
    """The provider failed or could not be reached, or the service takes no requests."""

    @property
    def is_safe_to_repeat(self) -> bool:
        """See HeadraceError: the service refused it before it was on record."""
        return (
            self.code == "server_error"
            and self.subreason in ("SHUTTING_DOWN", "STORAGE")
            and not self.attempts
            and not self._details.is_final
        )


class Interrupted(Unavailable):
    """The service's process ended while the request ran. What was kept is in `partial`; a new try takes a new id."""


class ConnectionLost(Unavailable):
    """The service could not be reached, or the connection broke. What became of the request, its record tells."""

    @property
    def is_safe_to_repeat(self) -> bool:
        """See HeadraceError: the id leads to whatever has been done."""
        return not self._details.is_final


_BY_CODE: dict[str, type[HeadraceError]] = {
    "authentication_error": AuthenticationFailed,
    "invalid_request": InvalidRequest,
    "rate_limit_exceeded": RateLimited,
    "server_error": Unavailable,
    "timeout": TimedOut,
    "network_error": Unavailable,
    "content_filter": ContentFiltered,
    "model_not_found": ModelNotFound,
    "quota_exceeded": QuotaExceeded,
    "cancelled": Cancelled,
    "interrupted": Interrupted,
}

_BY_STATUS: dict[grpc.StatusCode, type[HeadraceError]] = {
    grpc.StatusCode.UNAVAILABLE: ConnectionLost,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationFailed,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationFailed,
}
"""Of statuses that are not of the service's making: those of the library, or of a proxy between."""


def from_event(error: ProviderError, details: Details | None = None) -> HeadraceError:
    """The exception for a `failed` event, or for the ProviderError of a status."""
    kind = _BY_CODE.get(enum_word(ErrorCode, error.code), HeadraceError)
    if error.subreason in ("REQUEST_NOT_FOUND", "PROVIDER_NOT_FOUND"):
        kind = NotFound
    return kind(error, details)


def from_rpc(error: grpc.RpcError, request_id: str = "") -> HeadraceError:
    """The exception for the error of an RPC, blocking or asynchronous."""
    call: Any = error
    details = read_details({key: value for key, value in call.trailing_metadata() or ()})  # noqa: C416 - dict() reads grpc.aio's as a mapping
    if details.error is not None:
        return from_event(details.error, details)
    code = call.code()
    told = ProviderError(request_id=request_id, message=f"{code.name}: {call.details() or 'no message'}")
    return _BY_STATUS.get(code, HeadraceError)(told, details)


def connection_lost(request_id: str) -> HeadraceError:
    """A stream that ended as if all were well, and was not complete."""
    return ConnectionLost(ProviderError(request_id=request_id, message="the stream ended before the answer was complete"))
