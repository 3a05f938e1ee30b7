"""Ids, and what makes two requests the same."""

import hashlib
import secrets

from headrace_server.domain.request import DisconnectPolicy, GenerateRequest, MidStreamFallback, ReasoningConfig, TextFormat
from headrace_server.domain.retry import RetryStrategy

_POOL = 4_096
_pool = b""


def _random_bytes(count: int) -> bytes:
    """Of the system's randomness, fetched in advance: each call of the system gives the interpreter to another thread."""
    global _pool
    if len(_pool) < count:
        _pool = secrets.token_bytes(_POOL)
    taken, _pool = _pool[:count], _pool[count:]
    return taken


def new_id(now: int) -> str:
    """A UUIDv7 (RFC 9562) of a time in milliseconds: it begins with the time, so that ids sort by age."""
    random = int.from_bytes(_random_bytes(10))
    value = (now & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_NOT_WHAT_IS_ASKED = frozenset({"request_id", "stream", "quiet", "timing", "priority"})
"""Fields that do not make a request another one."""


def fingerprint(request: GenerateRequest) -> str:
    """Equal for requests that ask for the same: everything counts but the id, how the answer is told, and how urgent it is.

    Canonical: fields stand in the order of the model, objects have their keys in order, and what is not set is left out, as is what is
    set to what it would be anyway.
    """
    content = _canonical(request).model_dump_json(exclude=set(_NOT_WHAT_IS_ASKED), exclude_none=True)
    return hashlib.sha256(content.encode()).hexdigest()


def differences(one: GenerateRequest, other: GenerateRequest) -> list[str]:
    """The names of the fields in which two requests ask for something else."""
    one, other = _canonical(one), _canonical(other)
    names = (name for name in GenerateRequest.model_fields if name not in _NOT_WHAT_IS_ASKED)
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _canonical(request: GenerateRequest) -> GenerateRequest:
    """The same request, with nothing said that goes without saying."""
    changes: dict[str, object] = {}
    if request.on_disconnect is DisconnectPolicy.CANCEL:
        changes["on_disconnect"] = None
    if isinstance(request.response_format, TextFormat):
        changes["response_format"] = None
    if request.reasoning == ReasoningConfig():
        changes["reasoning"] = None
    if request.retry.strategy is RetryStrategy.EXPONENTIAL:
        changes["retry"] = request.retry.model_copy(update={"strategy": None})
    unsaid = {
        **({"enabled": None} if request.fallback.enabled else {}),
        **({"mid_stream": None} if request.fallback.mid_stream is MidStreamFallback.NEVER else {}),
        **({"on_context_length": None} if request.fallback.on_context_length is False else {}),
        **({"on_content_filter": None} if request.fallback.on_content_filter is False else {}),
    }
    if unsaid:
        changes["fallback"] = request.fallback.model_copy(update=unsaid)
    return request.model_copy(update=changes) if changes else request
