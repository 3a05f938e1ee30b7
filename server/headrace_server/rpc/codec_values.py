"""The small conversions that every codec needs: enums, times, structs, and numbers and texts that protobuf can hold.

Towards protobuf everything is total: what does not fit is clamped. From protobuf what is wrong goes into a list of (path, sentence), and
the conversion goes on, so that a caller hears of everything at once.
"""

import re
from enum import StrEnum
from typing import Any, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1 import (
    analytics_service_pb2,
    error_pb2,
    lifecycle_pb2,
    message_pb2,
    provider_service_pb2,
    request_pb2,
    result_pb2,
    usage_pb2,
)
from headrace_server.domain.analytics import UsageDimension
from headrace_server.domain.base import MAX_STRUCT_DEPTH, storable_json
from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import MessageRole
from headrace_server.domain.provider import CircuitState, Dialect, ProviderSource
from headrace_server.domain.request import DisconnectPolicy, MidStreamFallback, ReasoningEffort, ToolChoiceMode
from headrace_server.domain.result import FinishReason
from headrace_server.domain.retry import RetryStrategy
from headrace_server.domain.usage import UsageSource
from headrace_server.domain.violations import Loc

Wrong = list[tuple[Loc, str]]
"""What was found wrong so far: where, and a sentence."""

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
MAX_DURATION_S = 315_576_000_000
MAX_TIMESTAMP_S = 253_402_300_799
MIN_TIMESTAMP_S = -62_135_596_800

_MOST_EXACT = 2**53


# ---------------------------------------------------------------- enums

E = TypeVar("E", bound=StrEnum)


class EnumTable(Generic[E]):
    """A protobuf enum beside the domain's, matched by their names; UNSPECIFIED is None."""

    def __init__(self, proto: Any, domain: type[E]) -> None:
        # `proto` is an EnumTypeWrapper; the stubs show it as the class of its values.
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", proto.DESCRIPTOR.name).upper()
        self.proto = proto
        self.domain = domain
        self.numbers: dict[E | None, Any] = {None: 0} | {member: proto.Value(f"{prefix}_{member.name}") for member in domain}
        """From the domain to protobuf."""
        self._members: dict[int, E | None] = {number: member for member, number in self.numbers.items()}

    def member(self, number: int) -> E | int | None:
        """From protobuf to the domain; a number that is not known comes back as it is, for the domain type to refuse."""
        return self._members.get(number, number)

    def required(self, name: str, number: int) -> dict[str, E | int | None]:
        """The same as the entry of a required field: empty where it is UNSPECIFIED, so that the domain type misses it."""
        return {} if number == 0 else {name: self.member(number)}


ROLE = EnumTable(message_pb2.MessageRole, MessageRole)
RETRY_STRATEGY = EnumTable(request_pb2.RetryStrategy, RetryStrategy)
MID_STREAM_FALLBACK = EnumTable(request_pb2.MidStreamFallback, MidStreamFallback)
DISCONNECT_POLICY = EnumTable(request_pb2.DisconnectPolicy, DisconnectPolicy)
TOOL_CHOICE_MODE = EnumTable(request_pb2.ToolChoiceMode, ToolChoiceMode)
REASONING_EFFORT = EnumTable(request_pb2.ReasoningEffort, ReasoningEffort)
STATE = EnumTable(lifecycle_pb2.RequestState, State)
EVENT = EnumTable(lifecycle_pb2.LifecycleEvent, Event)
FINISH_REASON = EnumTable(result_pb2.FinishReason, FinishReason)
ERROR_CODE = EnumTable(error_pb2.ErrorCode, ErrorCode)
REPLAY_SAFETY = EnumTable(error_pb2.ReplaySafety, ReplaySafety)
USAGE_SOURCE = EnumTable(usage_pb2.UsageSource, UsageSource)
DIALECT = EnumTable(provider_service_pb2.Dialect, Dialect)
CIRCUIT_STATE = EnumTable(provider_service_pb2.CircuitState, CircuitState)
LIMIT_TYPE = EnumTable(provider_service_pb2.LimitType, LimitType)
PROVIDER_SOURCE = EnumTable(provider_service_pb2.ProviderSource, ProviderSource)
USAGE_DIMENSION = EnumTable(analytics_service_pb2.UsageDimension, UsageDimension)

ENUM_TABLES = (
    *(ROLE, RETRY_STRATEGY, MID_STREAM_FALLBACK, DISCONNECT_POLICY, TOOL_CHOICE_MODE, REASONING_EFFORT, STATE, EVENT),
    *(FINISH_REASON, ERROR_CODE, REPLAY_SAFETY, USAGE_SOURCE, DIALECT, CIRCUIT_STATE, LIMIT_TYPE, PROVIDER_SOURCE, USAGE_DIMENSION),
)


# ---------------------------------------------------------------- times


def duration_of(millis: int) -> Duration:
    """Milliseconds as a Duration."""
    millis = min(max(millis, -MAX_DURATION_S * 1000), MAX_DURATION_S * 1000)
    seconds, rest = divmod(abs(millis), 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000) if millis >= 0 else Duration(seconds=-seconds, nanos=-rest * 1_000_000)


def timestamp_of(millis: int) -> Timestamp:
    """Milliseconds since the epoch as a Timestamp."""
    seconds, rest = divmod(min(max(millis, MIN_TIMESTAMP_S * 1000), MAX_TIMESTAMP_S * 1000 + 999), 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def maybe_duration(millis: int | None) -> Duration | None:
    """The same, where None means not set."""
    return None if millis is None else duration_of(millis)


def maybe_timestamp(millis: int | None) -> Timestamp | None:
    """The same, where None means not set."""
    return None if millis is None else timestamp_of(millis)


def millis_of_duration(duration: Duration, at: Loc, wrong: Wrong) -> int | None:
    """A Duration in milliseconds, rounded up; None, and an entry in `wrong`, where it is negative or not valid."""
    seconds, nanos = duration.seconds, duration.nanos
    if seconds < 0 or nanos < 0:
        wrong.append((at, "must not be negative"))
    elif seconds > MAX_DURATION_S or nanos > 999_999_999:
        wrong.append((at, "is not a valid duration: at most 315,576,000,000 seconds and 999,999,999 nanoseconds"))
    else:
        return seconds * 1000 - -nanos // 1_000_000
    return None


def millis_of_timestamp(timestamp: Timestamp, at: Loc, wrong: Wrong) -> int | None:
    """A Timestamp in milliseconds since the epoch, rounded up; None, and an entry in `wrong`, where it is not valid or before 1970."""
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not 0 <= seconds <= MAX_TIMESTAMP_S or not 0 <= nanos <= 999_999_999:
        wrong.append((at, "must be a time between the years 1970 and 9999"))
        return None
    return seconds * 1000 - -nanos // 1_000_000


# ---------------------------------------------------------------- numbers and texts


def int32(number: int) -> int:
    """A count that fits into 32 bits."""
    return min(number, MAX_INT32)


def int64(number: int) -> int:
    """A number that fits into 64 bits."""
    return max(min(number, MAX_INT64), -MAX_INT64 - 1)


def utf8(text: str) -> str:
    """A text that protobuf can hold. Halves of surrogate pairs, which providers' JSON may hold, are joined or become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# ---------------------------------------------------------------- structs


def dict_of_struct(struct: Struct, at: Loc, wrong: Wrong) -> dict[str, Any]:
    """A Struct as a dict; whole numbers become integers. Does not recurse."""
    root: dict[str, Any] = {}
    todo: list[tuple[Struct | ListValue, dict[str, Any] | list[Any], int]] = [(struct, root, 1)]

    def plain(value: Value, depth: int) -> Any:
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                number = value.number_value
                if number - number != 0:  # NaN and the infinities
                    wrong.append((at, "must not hold NaN or an infinite number"))
                    return None
                return int(number) if number.is_integer() and abs(number) < 2**63 else number
            case "bool_value":
                return value.bool_value
            case "null_value":
                return None
            case "struct_value":
                fields: dict[str, Any] = {}
                todo.append((value.struct_value, fields, depth + 1))
                return fields
            case "list_value":
                items: list[Any] = []
                todo.append((value.list_value, items, depth + 1))
                return items
        wrong.append((at, "must not hold a value of no kind; null has a kind of its own"))
        return None

    while todo and not _found_wrong(at, wrong):
        source, target, depth = todo.pop()
        if depth > MAX_STRUCT_DEPTH:
            wrong.append((at, f"must be at most {MAX_STRUCT_DEPTH} levels deep"))
        elif isinstance(target, dict):
            for key, value in source.fields.items():  # type: ignore[union-attr]
                target[key] = plain(value, depth)
        else:
            target.extend(plain(value, depth) for value in source.values)  # type: ignore[union-attr]
    return root


def _found_wrong(at: Loc, wrong: Wrong) -> bool:
    """Whether something has just been found wrong at this place; one sentence is enough for a struct."""
    return bool(wrong) and wrong[-1][0] == at


def struct_of_dict(value: dict[str, Any]) -> Struct:
    """A dict as a Struct.

    What is deeper than 25 levels becomes a JSON string, and a number that a double cannot hold exactly, or at all, becomes a string.
    """
    struct = Struct()
    for key, item in storable_json(value).items():
        _fill(struct.fields[utf8(key)], item)
    return struct


def _fill(target: Value, item: Any) -> None:
    """Recurses no deeper than `storable_json` leaves the value."""
    match item:
        case None:
            target.null_value = NULL_VALUE
        case bool():
            target.bool_value = item
        case str():
            target.string_value = utf8(item)
        case int() if abs(item) <= _MOST_EXACT or (abs(item) < 2**63 and int(float(item)) == item):
            target.number_value = item
        case float() if item - item == 0:
            target.number_value = item
        case dict():
            target.struct_value.SetInParent()
            for key, inner in item.items():
                _fill(target.struct_value.fields[utf8(key)], inner)
        case list():
            target.list_value.SetInParent()
            for inner in item:
                _fill(target.list_value.values.add(), inner)
        case _:
            target.string_value = utf8(str(item))
