"""The ground the domain types stand on: one pydantic base and the small value types with their rules."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

MAX_JSON_DEPTH = 64
MAX_STRUCT_DEPTH = 25

_CANONICAL_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTROL = re.compile("[\\0-\x1f\x7f]")
_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")


class Model(BaseModel):
    """A frozen value that refuses fields it does not know. Bytes are base64 in JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the character NUL")
    return value


def _no_control(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _uuid(value: str) -> str:
    if _CANONICAL_UUID.fullmatch(value):
        return value
    lower = value.lower()
    if not _CANONICAL_UUID.fullmatch(lower):
        raise ValueError("must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
    return lower


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value and every key inside a JSON value, each with its depth. Does not recurse."""
    todo = [(value, 0)]
    while todo:
        item, above = todo.pop()
        depth = above + isinstance(item, dict | list)
        yield depth, item
        if isinstance(item, dict):
            todo.extend((key, depth) for key in item)
            todo.extend((child, depth) for child in item.values())
        elif isinstance(item, list):
            todo.extend((child, depth) for child in item)


def _json_object(value: str) -> str:
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be a JSON object: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object: too deep, or with too long a number") from None
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")
    for depth, item in _walk(parsed):
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"must be at most {MAX_JSON_DEPTH} levels deep")
        if isinstance(item, str) and _UNSTORABLE.search(item):
            raise ValueError("must not contain a lone surrogate or the character NUL")
    return value


def _shallow(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for depth, item in _walk(value):
        if depth > MAX_STRUCT_DEPTH:
            raise ValueError(f"must be at most {MAX_STRUCT_DEPTH} levels deep")
        if isinstance(item, str) and _UNSTORABLE.search(item):
            raise ValueError("must not contain a lone surrogate or the character NUL")
    ordered: dict[str, JsonValue] = _in_order(value)
    return ordered


def _in_order(value: Any) -> Any:
    """The same with the keys of objects in order, as `Struct` keeps none: equal values then have equal JSON."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def storable_text(text: str) -> str:
    """A provider's text as databases and protobuf take it: the character NUL and lone surrogates as U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def storable_json(value: Any, level: int = 1) -> Any:
    """A provider's JSON as `JsonStruct` takes it: what is deeper than 25 levels as a JSON string, its texts as `storable_text`.

    Numbers that are none (NaN, the infinities) become texts.
    """
    match value:
        case str():
            return storable_text(value)
        case float() if value - value != 0:
            return str(value)
        case dict() | list() if level > MAX_STRUCT_DEPTH:
            return storable_text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
        case dict():
            return {storable_text(key): storable_json(item, level + 1) for key, item in value.items()}
        case list():
            return [storable_json(item, level + 1) for item in value]
        case _:
            return value


Text = Annotated[str, AfterValidator(_no_nul)]
"""Any text without NUL, which databases refuse."""

Word = Annotated[str, Field(max_length=256), AfterValidator(_no_control)]
"""A short text of the caller's, such as a tag."""

Uuid = Annotated[str, AfterValidator(_uuid)]
"""A UUID in its canonical form."""

ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""Name of a configured provider."""

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@-]{1,256}$")]
"""A model, as its provider calls it."""

JsonObjectText = Annotated[str, AfterValidator(_json_object)]
"""A JSON object as a string, so that no number, order or depth is lost."""

JsonStruct = Annotated[dict[str, JsonValue], AfterValidator(_shallow)]
"""A JSON object as a value, shallow enough for `google.protobuf.Struct`."""

Millis = Annotated[int, Field(ge=0)]
"""A duration in milliseconds, or a time in milliseconds since the epoch."""

Count = Annotated[int, Field(ge=0)]
"""A number of things."""
