"""What comes with a gRPC status. The trailer `grpc-status-details-bin` holds a `google.rpc.Status`, whose details say what happened.

Only the four messages that are read are described here, in a pool of descriptors of their own: so the client needs neither
grpcio-status nor googleapis-common-protos, and gets along with both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from headrace.v1.result_pb2 import FieldViolation, ProviderError

_STATUS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"

_Field = FieldDescriptorProto

# Message -> field, number, type (a name stands for a message of this file), repeated. The wire form of google/rpc/*.proto and of Any.
_MESSAGES: dict[str, tuple[tuple[str, int, "_Field.Type.ValueType | str", bool], ...]] = {
    "Any": (("type_url", 1, _Field.TYPE_STRING, False), ("value", 2, _Field.TYPE_BYTES, False)),
    "Status": (("code", 1, _Field.TYPE_INT32, False), ("message", 2, _Field.TYPE_STRING, False), ("details", 3, "Any", True)),
    "Duration": (("seconds", 1, _Field.TYPE_INT64, False), ("nanos", 2, _Field.TYPE_INT32, False)),
    "RetryInfo": (("retry_delay", 1, "Duration", False),),
    "FieldViolation": (("field", 1, _Field.TYPE_STRING, False), ("description", 2, _Field.TYPE_STRING, False)),
    "BadRequest": (("field_violations", 1, "FieldViolation", True),),
}


def _messages() -> dict[str, type[Message]]:
    file = FileDescriptorProto(name="headrace/details.proto", package="details", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            described = message.field.add(name=field, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                described.type, described.type_name = _Field.TYPE_MESSAGE, f".details.{kind}"
            else:
                described.type = kind
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"details.{name}")) for name in _MESSAGES}


_CLASSES = _messages()


@dataclass(frozen=True, slots=True)
class Details:
    """What the details of a status say."""

    error: ProviderError | None = None
    """The service's own account; None where the status is not of its making."""
    retry_after: float | None = None
    """Seconds."""
    field_violations: tuple[FieldViolation, ...] = ()
    is_final: bool = False
    """Whoever answered asks not to be asked again: what could be tried has been tried."""


def read_details(trailers: Mapping[str, str | bytes]) -> Details:
    """What stands in the trailing metadata. Details of other types are passed over; broken ones say nothing."""
    error: ProviderError | None = None
    violations: list[FieldViolation] = []
    pushback = str(trailers.get(_PUSHBACK, ""))
    retry_after = int(pushback) / 1000 if pushback.isdecimal() else None
    is_final = pushback.startswith("-")
    try:
        status = trailers.get(_STATUS, b"")
        for detail in _parsed("Status", status if isinstance(status, bytes) else b"").details:
            match detail.type_url.rpartition("/")[2]:
                case "headrace.v1.ProviderError":
                    error = ProviderError.FromString(detail.value)
                case "google.rpc.RetryInfo":
                    delay = _parsed("RetryInfo", detail.value).retry_delay
                    retry_after = delay.seconds + delay.nanos / 1e9
                case "google.rpc.BadRequest":
                    told = _parsed("BadRequest", detail.value).field_violations
                    violations += (FieldViolation(field=one.field, description=one.description) for one in told)
                case _:
                    pass
    except DecodeError:
        return Details(retry_after=retry_after, is_final=is_final)
    return Details(error, retry_after, tuple(violations), is_final)


def _parsed(name: str, data: bytes) -> Any:
    return _CLASSES[name].FromString(data)
