"""From what pydantic finds wrong to what a caller is told: the field's path as callers write it, and a plain sentence.

The rules themselves stand in the types; this file only words them.
"""

import json
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from headrace_server.domain.errors import Violation, invalid

Value = TypeVar("Value")

Loc = tuple[str | int, ...]
"""Where a value stands: names of fields and keys, and positions in lists."""

MOST_VIOLATIONS = 1_000
"""Of more wrong fields than this the first ones are named."""

_LONGEST_KEY = 128

_SCALAR_ARMS = frozenset({"text", "refusal", "provider_data"})
"""Kinds of parts that are a field, not a message with fields."""

_MAPS = frozenset({"model_mapping", "provider_options", "provider_data"})
"""Fields whose own fields are keys of the caller's."""

_KINDS = frozenset({"text", "refusal", "provider_data"})
"""Kinds of parts that have one field, of the same name."""


def path_of(loc: Loc) -> str:
    """The path of a field as a caller would write it: `messages[1].content[0].image.uri`, `fallback.model_mapping["x"]`.

    Pydantic names the kind of a part besides its field: ('messages', 0, 'content', 1, 'text', 'text') is `messages[0].content[1].text`.
    """
    path = ""
    in_map = False
    for at, item in enumerate(loc):
        if isinstance(item, int):
            path += f"[{item}]"
        elif item in _SCALAR_ARMS and at >= 2 and loc[at - 1] == item and isinstance(loc[at - 2], int):
            in_map = item in _MAPS
        elif in_map:
            path += "" if item == "[key]" else f"[{json.dumps(item[:_LONGEST_KEY], ensure_ascii=False)}]"
        else:
            path += f".{item}" if path else item
            in_map = item in _MAPS
    return path


def faults_of(error: ValidationError) -> list[tuple[Loc, str]]:
    """Everything that pydantic found wrong: where, and a sentence."""
    found = error.errors(include_url=False, include_input=False)
    # A list whose items are all wrong counts as too short for pydantic; its items tell enough.
    holders = {line["loc"][:length] for line in found for length in range(len(line["loc"]))}
    return [
        (line["loc"], _sentence(line["loc"], line["type"], line["msg"], line.get("ctx") or {}))
        for line in found
        if not (line["type"] == "too_short" and line["loc"] in holders)
    ]


def refuse(wrong: Iterable[tuple[Loc, str]], what: str = "the request is not valid") -> None:
    """Raise the Refusal that names everything that is wrong; do nothing where nothing is."""
    # A caller may have written anything into the key of a map, so a path is not checked as a text again.
    violations = [Violation.model_construct(field=path_of(loc), description=text) for loc, text in islice(wrong, MOST_VIOLATIONS)]
    if violations:
        raise invalid(violations, what)


def validate(
    check: Callable[[Any], Value],
    data: Any,
    wrong: Collection[tuple[Loc, str]] = (),
    what: str = "the request is not valid",
    *,
    under: Loc = (),
) -> Value:
    """The value that `check` (a pydantic validation) makes of `data`, which stands `under` a field of what the caller sent.

    Raises a Refusal that names at once what is `wrong` already and what `check` finds.
    """
    try:
        value = check(data)
    except ValidationError as error:
        told = {loc for loc, _ in wrong}
        found = [(loc, text) for loc, text in (((*under, *loc), text) for loc, text in faults_of(error)) if loc not in told]
        refuse([*wrong, *found], what)
        raise
    refuse(wrong, what)
    return value


def _sentence(loc: Loc, kind: str, text: str, detail: dict[str, Any]) -> str:
    """What is wrong, in words that need no knowledge of pydantic; `text` is pydantic's own."""
    if kind in ("too_short", "string_too_short", "bytes_too_short"):
        sentence = _at_least(detail["min_length"], _unit(kind, detail))
    elif kind in ("too_long", "string_too_long", "bytes_too_long"):
        sentence = f"must have at most {detail['max_length']:,} {_unit(kind, detail)}"
    elif kind in _SENTENCES:
        sentence = _SENTENCES[kind].format(**detail)
    else:
        sentence = text.removeprefix("Value error, ")
    return f"its name {sentence}" if loc and loc[-1] == "[key]" else sentence


def _at_least(number: int, unit: str) -> str:
    return "must not be empty" if number == 1 else f"must have at least {number:,} {unit}"


def _unit(kind: str, detail: dict[str, Any]) -> str:
    # 'Value' is what pydantic calls a text that a rule of ours has looked at first.
    return {"too_short": "items", "too_long": "items"}.get(kind, "characters") if detail.get("field_type") != "Value" else "characters"


_SENTENCES = {
    "missing": "must be set",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "union_tag_not_found": "exactly one of its fields must be set",
    "union_tag_invalid": "cannot be a {tag}; it must be one of {expected_tags}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_type": "must be a text",
    "string_unicode": "must be valid Unicode",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "json_invalid": "must be a JSON object: {error}",
    "extra_forbidden": "is not a known field",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}
