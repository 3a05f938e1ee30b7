"""Ids, and what makes two requests the same."""

import hashlib
import secrets
import uuid

from headrace_server.domain.request import GenerateRequest


def new_id(now: int) -> str:
    """A UUIDv7 (RFC 9562) of a time in milliseconds: it begins with the time, so that ids sort by age."""
    value = (now & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def fingerprint(request: GenerateRequest) -> str:
    """Equal for requests that ask for the same: everything counts but the id and how the answer is told.

    Canonical: fields stand in the order of the model, objects have their keys in order, what is not set is left out.
    """
    content = request.model_dump_json(exclude={"request_id", "stream", "quiet", "timing"}, exclude_none=True)
    return hashlib.sha256(content.encode()).hexdigest()
