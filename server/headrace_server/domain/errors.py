"""What can go wrong, as data, and the exceptions that carry it. Foreign exceptions become one of these where they arise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from headrace_server.domain.base import Millis, Model, Text
from headrace_server.domain.limits import LimitType


class ErrorCode(StrEnum):
    """Why a generation failed. Ten of a provider's making, two of the gateway's own."""

    AUTHENTICATION_ERROR = "authentication_error"
    INVALID_REQUEST = "invalid_request"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    NETWORK_ERROR = "network_error"
    CONTENT_FILTER = "content_filter"
    MODEL_NOT_FOUND = "model_not_found"
    QUOTA_EXCEEDED = "quota_exceeded"
    UNKNOWN_ERROR = "unknown_error"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Subreason(StrEnum):
    """A finer word within a code."""

    # Of a provider's making.
    CONTEXT_LENGTH = "CONTEXT_LENGTH"
    TOO_LARGE = "TOO_LARGE"
    BILLING = "BILLING"
    SPEND_LIMIT = "SPEND_LIMIT"
    DAILY = "DAILY"
    ENTITLEMENT = "ENTITLEMENT"
    PERMISSION = "PERMISSION"
    REGION = "REGION"
    OVERLOADED = "OVERLOADED"
    RAMP = "RAMP"
    NEVER_FITS = "NEVER_FITS"
    NON_JSON = "NON_JSON"
    TTFT = "TTFT"
    STREAM_IDLE = "STREAM_IDLE"
    PROGRESS = "PROGRESS"
    STREAM_TRUNCATED = "STREAM_TRUNCATED"
    MALFORMED_EVENT = "MALFORMED_EVENT"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    EMPTY = "EMPTY"
    REDIRECT_BLOCKED = "REDIRECT_BLOCKED"
    BAD_CREDENTIAL_FORMAT = "BAD_CREDENTIAL_FORMAT"
    # Of the gateway's own.
    ALREADY_EXISTS = "ALREADY_EXISTS"
    REQUEST_NOT_FOUND = "REQUEST_NOT_FOUND"
    PROVIDER_NOT_FOUND = "PROVIDER_NOT_FOUND"
    PROVIDER_IN_FILE = "PROVIDER_IN_FILE"
    PROVIDER_IN_USE = "PROVIDER_IN_USE"
    PROVIDER_DISABLED = "PROVIDER_DISABLED"
    NO_API_KEY = "NO_API_KEY"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_IN_FLIGHT = "TOO_MANY_IN_FLIGHT"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    STORAGE = "STORAGE"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    SLOW_CLIENT = "SLOW_CLIENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INTERNAL = "INTERNAL"


class ReplaySafety(StrEnum):
    """What may have happened at the provider in an attempt that failed."""

    NOT_SENT = "not_sent"
    UNCERTAIN = "uncertain"
    PARTIAL_OUTPUT = "partial_output"


class RateLimitInfo(Model):
    """What is known of the limit that was hit."""

    retry_after: Annotated[Millis, Field(gt=0)] | None = None
    limit: int | None = None
    remaining: int | None = None
    reset_time: Millis | None = None


class Violation(Model):
    """One wrong field of a request; `field` is its path as a caller would write it."""

    field: Text
    description: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong in one attempt, and what may be done about it."""

    code: ErrorCode
    message: str
    subreason: str = ""
    retryable: bool = False
    """Whether the same provider may be tried again."""
    fallback: bool = True
    """Whether another provider may do better."""
    replay_safety: ReplaySafety = ReplaySafety.UNCERTAIN
    http_status: int = 0
    provider_type: str = ""
    provider_code: str = ""
    provider_request_id: str = ""
    provider_text: str = ""
    """The provider's whole text, redacted, cut at 64 KB; for the record only."""
    retry_after: int | None = None
    """Milliseconds that the provider told us to wait."""
    rate_limit: RateLimitInfo | None = None
    left: Mapping[LimitType, int] = field(default_factory=dict)
    """What the provider says is left of its limits, by the headers of its answer."""
    violations: tuple[Violation, ...] = ()


class HeadraceError(Exception):
    """Something failed in a way that a caller is told about. Its text is safe to show."""

    def __init__(self, fault: Fault, request_id: str = "") -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.request_id = request_id
        """Id of the request that it is about, where there is one."""


class ProviderFault(HeadraceError):
    """A call of a provider failed."""


class Refusal(HeadraceError):
    """The gateway itself refuses."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        subreason: str = "",
        *,
        violations: Sequence[Violation] = (),
        retryable: bool = False,
        rate_limit: RateLimitInfo | None = None,
    ) -> None:
        super().__init__(
            Fault(
                code=code,
                message=message,
                subreason=subreason,
                retryable=retryable,
                fallback=False,
                replay_safety=ReplaySafety.NOT_SENT,
                rate_limit=rate_limit,
                retry_after=rate_limit.retry_after if rate_limit else None,
                violations=tuple(violations),
            )
        )


def invalid(violations: Sequence[Violation], what: str = "the request is not valid") -> Refusal:
    """The refusal that names every wrong field at once."""
    named = ", ".join(v.field for v in violations[:8]) + (", …" if len(violations) > 8 else "")
    return Refusal(ErrorCode.INVALID_REQUEST, f"{what}: {named}" if named else what, violations=violations)


@dataclass(slots=True, eq=False)
class CorruptRow(Exception):
    """A stored row does not obey the rules of its table."""

    table: str
    row_id: str
    column: str
    why: str = field(default="")

    def __str__(self) -> str:
        return f"{self.table} row {self.row_id}: column {self.column} is corrupt: {self.why}"


class StoreUnavailable(HeadraceError):
    """The store cannot be reached, or refuses to write."""

    def __init__(self, message: str) -> None:
        super().__init__(
            Fault(
                code=ErrorCode.SERVER_ERROR,
                message=message,
                subreason=Subreason.STORAGE,
                retryable=True,
                fallback=False,
                replay_safety=ReplaySafety.NOT_SENT,
            )
        )
