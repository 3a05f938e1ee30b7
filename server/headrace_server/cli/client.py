"""What the commands that talk to a running service share: the connection, how its errors are shown, tables and JSON lines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import grpc
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

DEFAULT_SERVER = "127.0.0.1:50051"

Server = Annotated[str, typer.Option("--server", envvar="HEADRACE_SERVER", help="Address of the service, HOST:PORT.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


@contextmanager
def connection(server: str) -> "Iterator[grpc.Channel]":
    """A channel to the service. An error of the service is shown on stderr, and ends the command with exit code 1."""
    import grpc

    with grpc.insecure_channel(server) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            typer.echo("\n".join(explain(error, server)), err=True)
            raise typer.Exit(1) from None


def explain(error: Any, server: str) -> list[str]:
    """The lines that tell a person what the service answered: status, message, reason, wrong fields, when to try again."""
    import grpc
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    code, message = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and ("failed to connect" in message or "name resolution" in message.lower()):
        return [f"headrace: UNAVAILABLE: no service answers at {server}: is `headrace serve` running there?"]
    lines = [f"headrace: {code.name}: {message}"]
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            told = kind()
            if not detail.Unpack(told):
                continue
            if kind is error_details_pb2.ErrorInfo:
                known = {name: value for name, value in sorted(told.metadata.items()) if value}
                lines.append(f"  reason: {told.reason}" + "".join(f", {name} {value}" for name, value in known.items()))
            elif kind is error_details_pb2.BadRequest:
                lines += (f"  {violation.field}: {violation.description}" for violation in told.field_violations)
            else:
                lines.append(f"  try again in {seconds(told.retry_delay)}")
    return lines


def echo_json(message: "Message") -> None:
    """One message as one line of JSON, fields named as in the proto files."""
    from google.protobuf.json_format import MessageToDict

    typer.echo(json.dumps(MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False))
    sys.stdout.flush()


def echo_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, aligned."""
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    for row in (titles, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def word(enum: Any, value: int) -> str:
    """An enum's value without its prefix, in lower case; its number where this program does not know it."""
    if value not in enum.values():
        return str(value)
    first, name = enum.Name(0), enum.Name(value)
    return str(name).removeprefix(str(first).removesuffix("UNSPECIFIED")).lower()


def number(enum: Any, value: str) -> int:
    """The reverse of `word`. An unknown word is wrong usage."""
    words: dict[str, int] = {word(enum, number): number for number in enum.values() if number}
    if value.lower() not in words:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(words)}")
    return words[value.lower()]


def seconds(duration: "Duration") -> str:
    """A duration for people."""
    return f"{duration.seconds + duration.nanos / 1e9:.3g} s"


def clock(timestamp: "Timestamp") -> str:
    """A time for people: UTC, to the millisecond."""
    return datetime.fromtimestamp(timestamp.seconds + timestamp.nanos / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
