"""Ids as callers write them, and requests that cannot be read as requests."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import TypeAdapter, ValidationError

from headrace_server.domain.base import Uuid
from headrace_server.domain.errors import Violation, invalid

MAX_KEPT = 64 * 1024
"""Bytes of a request that could not be read which are kept on record."""

_UUID: TypeAdapter[str] = TypeAdapter(Uuid)


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its usual form."""
    try:
        _UUID.validate_python(text)
    except ValidationError:
        return False
    return True


def checked_uuid(text: str, field: str) -> str:
    """The UUID in its canonical form. Raises Refusal naming the field."""
    try:
        return _UUID.validate_python(text)
    except ValidationError:
        raise invalid([Violation(field=field, description="must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]) from None


def describe(message: Message) -> Any:
    """A message as JSON for the record, or its size where it is too large or has no JSON form."""
    size = message.ByteSize()
    if size > MAX_KEPT:
        return {"not_kept": f"{size} bytes"}
    try:
        return _storable(json_format.MessageToDict(message, preserving_proto_field_name=True))
    except (ValueError, TypeError, RecursionError, json_format.Error):
        return {"not_kept": f"{size} bytes without a form in JSON"}


def _storable(value: Any) -> Any:
    """Without the character NUL, which databases refuse."""
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
