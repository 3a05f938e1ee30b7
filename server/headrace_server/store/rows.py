"""Rows as the database holds them, and the domain's models: both ways, and checked both ways.

What does not obey the model's rules is a CorruptRow that names table, id and column. It never shows the value, which may be a prompt
or a key; that is why pydantic's own error, which does, is not kept as its cause.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticSerializationError

from headrace_server.domain.base import Model
from headrace_server.domain.errors import CorruptRow
from headrace_server.domain.limits import LimitType, Window
from headrace_server.domain.ports import Reservation
from headrace_server.domain.provider import ProviderRow, ProviderSettings
from headrace_server.domain.record import AnyRequest, AttemptsJson, LogRow, MetricsRow, TransitionsJson, UnreadRequest
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import GenerationResult, ProviderError
from headrace_server.store.counters import Held

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Codec:
    """How a value that is no plain text or number stands in its column. NULL is None."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class Table(Generic[M]):
    """A table and its model. A field that `columns` does not name stands in a column of its own name.

    `codecs` are by field. `unchecked` fields are not checked when they are written.
    """

    def __init__(
        self,
        name: str,
        model: type[M],
        *,
        columns: Mapping[str, str] = MappingProxyType({}),
        codecs: Mapping[str, Codec] = MappingProxyType({}),
        unchecked: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.model = model
        self.fields = tuple(model.model_fields)
        self.columns = columns
        self.codecs = codecs
        self._unchecked = unchecked
        self._whole = self.part(self.fields)

    def part(self, fields: Sequence[str]) -> "Part[M]":
        """Some of the fields, to be written by themselves."""
        return Part(self, fields, [field for field in fields if field not in self._unchecked])

    def names(self) -> list[str]:
        """All columns, in the order of `encode` and `decode`."""
        return self._whole.names()

    def encode(self, row: M) -> list[Any]:
        """The values to write. Raises CorruptRow."""
        return self._whole.encode(row)

    def decode(self, record: Sequence[Any]) -> M:
        """The row that was read: values in the order of the fields. Raises CorruptRow."""
        values = dict(zip(self.fields, record, strict=True))
        for name, codec in self.codecs.items():
            if values[name] is not None:
                try:
                    values[name] = codec.decode(values[name])
                except ValueError as error:
                    raise self.corrupt(values["id"], name, error) from None
        try:
            return self.model.model_validate(values)
        except ValidationError as error:
            raise self.corrupt(values["id"], str(_lines(error)[0]["loc"][0]), error) from None

    def corrupt(self, row_id: object, name: str, error: Exception) -> CorruptRow:
        """The error of a field."""
        return CorruptRow(self.name, str(row_id), self.columns.get(name, name), _why(error))


class Part(Generic[M]):
    """Fields of a table that are written together."""

    def __init__(self, table: Table[M], fields: Sequence[str], checked: Sequence[str]) -> None:
        self._table = table
        self._fields = [(name, table.codecs.get(name)) for name in fields]
        self._checked = tuple(checked)
        # Fields are checked against their own rules; the values inside them were checked when they were made.
        rules: dict[str, Any] = {name: (table.model.model_fields[name].annotation, table.model.model_fields[name]) for name in checked}
        self._rules = create_model(f"{table.model.__name__}Part", __base__=Model, **rules).__pydantic_validator__

    def names(self) -> list[str]:
        """The columns."""
        return [self._table.columns.get(name, name) for name, _ in self._fields]

    def encode(self, row: M) -> list[Any]:
        """The values to write. Raises CorruptRow."""
        values = row.__dict__
        try:
            self._rules.validate_python({name: values[name] for name in self._checked})
        except ValidationError as error:
            raise self._table.corrupt(values["id"], str(_lines(error)[0]["loc"][0]), error) from None
        written = []
        for name, codec in self._fields:
            value = values[name]
            if codec is not None and value is not None:
                try:
                    value = codec.encode(value)
                except (PydanticSerializationError, ValueError) as error:
                    raise self._table.corrupt(values["id"], name, error) from None
            written.append(value)
        return written


def _lines(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(str(part) for part in line['loc'])} {line['msg']}".strip() for line in _lines(error)[:3])
    return "it cannot be written as JSON"


def _json(adapter: TypeAdapter[Any]) -> Codec:
    # Only None is left out: without its defaults a part of a message would lose the `type` that tells what it is.
    return Codec(
        encode=lambda value: adapter.dump_json(value, exclude_none=True, warnings="error").decode(),
        decode=adapter.validate_json,
    )


_REQUEST: TypeAdapter[GenerateRequest | UnreadRequest] = TypeAdapter(AnyRequest)
_RESULT: TypeAdapter[GenerationResult] = TypeAdapter(GenerationResult)


def _encode_request(request: GenerateRequest | UnreadRequest) -> str:
    return request.model_dump_json(exclude_none=isinstance(request, GenerateRequest), warnings="error")


def _encode_result(result: GenerationResult) -> str:
    # Answers are made without checks, so that nothing a provider says is refused: what cannot be read again must not be written.
    text = _RESULT.dump_json(result, exclude_none=True, warnings="error")
    _RESULT.validate_json(text)
    return text.decode()


_WORDS = _json(TypeAdapter(tuple[str, ...]))

LOGS = Table(
    name="provider_logs",
    model=LogRow,
    columns={"error": "error_data"},
    codecs={
        "request_data": Codec(encode=_encode_request, decode=_REQUEST.validate_json),
        "response_data": Codec(encode=_encode_result, decode=_RESULT.validate_json),
        "error": _json(TypeAdapter(ProviderError)),
        "tags": _WORDS,
        "attempts": _json(AttemptsJson),
        # msgspec writes these dataclasses seven times as fast, and they are written with every update.
        "transitions": Codec(encode=lambda value: msgspec.json.encode(value).decode(), decode=TransitionsJson.validate_json),
    },
    # A request is checked when it is made, which takes longer than to write it, and it never changes.
    unchecked=frozenset({"request_data"}),
)

METRICS = Table(name="provider_metrics", model=MetricsRow)

PROVIDERS = Table(
    name="provider_configs",
    model=ProviderRow,
    columns={"config": "config_json"},
    codecs={"fallback_providers": _WORDS, "config": _json(TypeAdapter(ProviderSettings))},
)

CHANGING = (
    "provider",
    "model",
    "state",
    "response_data",
    "error",
    "error_message",
    "error_code",
    "end_time",
    "duration",
    "retry_attempt",
    "attempts",
    "transitions",
    "updated_at",
)
"""The fields of a LogRow that an update writes. All others are fixed when a request is accepted."""

PROGRESS = LOGS.part(CHANGING)
"""What an update writes."""


def keep_fixed(standing: LogRow, row: LogRow) -> LogRow:
    """An update of the standing row, without what is fixed."""
    return standing.model_copy(update={name: getattr(row, name) for name in CHANGING})


WINDOW_COLUMNS = ("provider", "model", "limit_type", "limit_value", "current_usage", "previous_usage", "reserved", "reset_at", "lowered")


def window_values(window: Window) -> list[Any]:
    """The values of WINDOW_COLUMNS."""
    return [window.limit_type.value if name == "limit_type" else getattr(window, name) for name in WINDOW_COLUMNS]


_WINDOW: TypeAdapter[Window] = TypeAdapter(Window)


def window_from(record: Sequence[Any]) -> Window:
    """The window that was read: first its id, then WINDOW_COLUMNS. Raises CorruptRow."""
    try:
        return _WINDOW.validate_python(dict(zip(WINDOW_COLUMNS, record[1:], strict=True)))
    except ValidationError as error:
        raise CorruptRow("provider_rate_limits", str(record[0]), str(_lines(error)[0]["loc"][0]), _why(error)) from None


HELD_COLUMNS = ("request_id", "attempt", "provider", "model", "tokens", "zone", "limit_types", "node", "created_at")
_LIMIT_TYPES: TypeAdapter[tuple[LimitType, ...]] = TypeAdapter(tuple[LimitType, ...])


def held_values(held: Held) -> list[Any]:
    """The values of HELD_COLUMNS."""
    r = held.reservation
    types = _LIMIT_TYPES.dump_json(held.limit_types).decode()
    return [r.request_id, r.attempt, r.provider, r.model, r.tokens, r.zone, types, held.node, held.created_at]


def held_from(record: Sequence[Any]) -> Held:
    """The reservation that was read: HELD_COLUMNS. Raises CorruptRow."""
    request_id, attempt, provider, model, tokens, zone, types, node, created_at = record
    try:
        limit_types = _LIMIT_TYPES.validate_json(types)
    except ValidationError as error:
        raise CorruptRow("rate_limit_reservations", f"{request_id}/{attempt}", "limit_types", _why(error)) from None
    reservation = Reservation(request_id=request_id, attempt=attempt, provider=provider, model=model, tokens=tokens, zone=zone)
    return Held(reservation=reservation, limit_types=limit_types, node=node, created_at=created_at)
