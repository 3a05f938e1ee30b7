"""The faults of the gateway's own: what it refuses, stops or gives up by itself."""

from dataclasses import replace

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


def circuit_open(provider: str, retry_after: int) -> Fault:
    """The provider's circuit breaker lets no call through; `retry_after` in milliseconds, 0 while its probe is under way."""
    return Fault(
        code=ErrorCode.SERVER_ERROR,
        message=f"the circuit of the provider {provider!r} is open: it failed too often",
        subreason=Subreason.CIRCUIT_OPEN,
        retryable=True,
        replay_safety=ReplaySafety.NOT_SENT,
        retry_after=retry_after or None,
    )


def not_retried(fault: Fault, why: str) -> Fault:
    """A fault that would have been retried, with the reason why it was not."""
    return replace(fault, message=f"{fault.message[:900]} (not retried: {why})")


def queue_full(provider: str, length: int, wait: int) -> Fault:
    """No place at the provider, and none in its queue, or not in time; `wait` is how long one would probably wait, in milliseconds."""
    return Fault(
        code=ErrorCode.RATE_LIMIT_EXCEEDED,
        message=f"all places of the provider {provider!r} are taken and {length:,} requests wait: no place in time",
        subreason=Subreason.QUEUE_FULL,
        retryable=True,
        replay_safety=ReplaySafety.NOT_SENT,
        retry_after=wait or None,
    )


def cancelled(why: str) -> Fault:
    """The caller does not want the answer any more."""
    return Fault(code=ErrorCode.CANCELLED, message=why, fallback=False)


def slow_client(seconds: float) -> Fault:
    """The caller is there, but has taken nothing for so long."""
    message = f"the caller took nothing of what was written for {seconds:g} s"
    return Fault(code=ErrorCode.CANCELLED, message=message, subreason=Subreason.SLOW_CLIENT, fallback=False)


def too_many_in_flight(limit: int, where: str) -> Refusal:
    """As many generations run already as may; one may end at any moment."""
    return Refusal(
        ErrorCode.RATE_LIMIT_EXCEEDED,
        f"{limit:,} generations are in flight {where} already",
        Subreason.TOO_MANY_IN_FLIGHT,
        retryable=True,
        rate_limit=RateLimitInfo(retry_after=1_000, limit=limit, remaining=0),
    )


def out_of_time(allowed: str = "") -> Fault:
    """The request's own time is over; `allowed` says how long that was, and who set it."""
    message = "the deadline of the request has passed" + (f": {allowed}" if allowed else "")
    return Fault(code=ErrorCode.TIMEOUT, message=message, fallback=False)


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
