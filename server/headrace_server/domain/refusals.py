"""The faults of the gateway's own: what it refuses, stops or gives up by itself."""

from headrace_server.domain.errors import ErrorCode, Fault, HeadraceError, RateLimitInfo, Refusal, ReplaySafety, Subreason
from headrace_server.domain.identity import differences
from headrace_server.domain.limits import Refused
from headrace_server.domain.request import GenerateRequest


def not_found(request_id: str) -> Refusal:
    """There is no such request."""
    return Refusal(ErrorCode.INVALID_REQUEST, f"there is no request {request_id}", Subreason.REQUEST_NOT_FOUND)


def already_exists(request_id: str, standing: object, wanted: GenerateRequest | None = None) -> Refusal:
    """The id belongs to a request with other content; says in which fields they differ, never what is in them."""
    message = f"the request {request_id} exists already, with other content"
    if isinstance(standing, GenerateRequest) and wanted is not None:
        message += f" in {', '.join(differences(standing, wanted))}"
    return Refusal(ErrorCode.INVALID_REQUEST, message, Subreason.ALREADY_EXISTS)


def shutting_down() -> Refusal:
    """No new work is taken."""
    return Refusal(ErrorCode.SERVER_ERROR, "the service is shutting down", Subreason.SHUTTING_DOWN, retryable=True)


def unusable(code: ErrorCode, message: str, subreason: Subreason) -> HeadraceError:
    """This provider cannot be asked; another one may."""
    return HeadraceError(Fault(code=code, message=message, subreason=subreason, replay_safety=ReplaySafety.NOT_SENT))


def over_our_limit(refused: Refused) -> Fault:
    """Our own limiter does not admit the request now, or ever."""
    window = refused.window
    what = window.limit_type.replace("_", " ")
    message = f"over Headrace's own limit of {window.limit_value:,} {what} for {window.provider}/{window.model}"
    if refused.retry_after is None:
        return Fault(
            code=ErrorCode.RATE_LIMIT_EXCEEDED,
            message=f"{message}: the request alone is larger than that",
            subreason=Subreason.NEVER_FITS,
            replay_safety=ReplaySafety.NOT_SENT,
        )
    return Fault(
        code=ErrorCode.RATE_LIMIT_EXCEEDED,
        message=message,
        retryable=True,
        replay_safety=ReplaySafety.NOT_SENT,
        retry_after=refused.retry_after,
        rate_limit=RateLimitInfo(retry_after=refused.retry_after, limit=window.limit_value, remaining=0, reset_time=window.reset_at),
    )


def cancelled(why: str) -> Fault:
    """The caller does not want the answer any more."""
    return Fault(code=ErrorCode.CANCELLED, message=why, fallback=False)


def out_of_time() -> Fault:
    """The request's own time is over."""
    return Fault(code=ErrorCode.TIMEOUT, message="the deadline of the request has passed", fallback=False)


def interrupted() -> Fault:
    """The process ends while the request runs."""
    return Fault(
        code=ErrorCode.INTERRUPTED,
        message="the service is shutting down; a new try takes a new request id",
        subreason=Subreason.SHUTTING_DOWN,
        fallback=False,
    )


def internal(incident: str) -> Fault:
    """A fault in Headrace itself: the caller gets an id to quote, never the text."""
    return Fault(code=ErrorCode.UNKNOWN_ERROR, message=f"internal error, id={incident}", subreason=Subreason.INTERNAL, fallback=False)
