"""What all dialects do with JSON: read what may be broken, write small, look at values of unknown kind."""

from typing import Any, Final

import msgspec

Json = dict[str, Any]

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading bytes as JSON may raise."""


def compact(value: Any) -> str:
    """A value as JSON text without white space."""
    return msgspec.json.encode(value).decode()


def text_of(value: Any) -> str:
    """The value where it is a text; empty for anything else."""
    return value if isinstance(value, str) else ""


def is_object(text: str) -> bool:
    """Whether a text is a JSON object. Its numbers are not read, so that none is too large."""
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (*UNREADABLE, UnicodeEncodeError):
        return False
    return True
