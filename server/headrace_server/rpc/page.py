"""Pages of lists: their size, and the tokens that say where they go on. Tokens are opaque to callers and bound to the list's filters."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from headrace_server.rpc.codec_values import MAX_INT64, Wrong

MAX_PAGE_SIZE = 1_000

Key = str | int
"""A part of a position: a printable text, or an integer from 0 to 2^63 - 1."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a list request asks for: how many rows, and those behind which position; () is before the first row."""

    size: int
    after: tuple[Any, ...] = ()


def decode_page(request: Message, keys: tuple[type[Key], ...], wrong: Wrong, *, default: int = 100) -> Page:
    """Read `page_size` and `page_token` of a list request whose positions consist of `keys`. What is not right goes into `wrong`."""
    size: int = request.page_size  # type: ignore[attr-defined]
    token: str = request.page_token  # type: ignore[attr-defined]
    if not 0 <= size <= MAX_PAGE_SIZE:
        wrong.append((("page_size",), f"must be from 1 to {MAX_PAGE_SIZE:,}; 0 stands for {default}"))
        size = default
    page = Page(size or default)
    if not token:
        return page
    try:
        filters, *position = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        filters, position = None, []
    if len(position) != len(keys) or not all(_is_key(key, kind) for key, kind in zip(position, keys, strict=True)):
        wrong.append((("page_token",), "is not a next_page_token of this list"))
        return page
    if filters != _fingerprint(request):
        wrong.append((("page_token",), "belongs to a list with other filters"))
    return Page(page.size, tuple(position))


def encode_page_token(request: Message, position: tuple[Key, ...]) -> str:
    """The token of the page behind `position`, for a list request with the same filters."""
    text = json.dumps([_fingerprint(request), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _is_key(key: object, kind: type[Key]) -> bool:
    match key:
        case bool():
            return False
        case str():
            return kind is str and key.isprintable()
        case int():
            return kind is int and 0 <= key <= MAX_INT64
    return False


def _fingerprint(request: Message) -> str:
    """Of everything in a list request but the page."""
    filters = type(request)()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    return hashlib.sha256(filters.SerializeToString(deterministic=True)).hexdigest()[:12]
