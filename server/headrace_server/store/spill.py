"""The spill file: where the ends of requests wait while the database takes no writes.

A text file beside the database, one for each process, one line for each end: a checksum (CRC-32, eight hexadecimal digits), a space,
JSON, a newline. Zeros behind the last line keep room, so that a full disk does not refuse the first ends. The process that a file
belongs to holds a lock on it for as long as it lives: a file whose lock is to be had is a dead process's.
"""

import fcntl
import os
import sys
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import msgspec

from headrace_server.domain.errors import CorruptRow
from headrace_server.domain.limits import LimitType
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.store.rows import LOGS, METRICS, Table

ROOM = 4 * 1024 * 1024
"""Bytes that a file takes from the start: a few hundred ends of usual size. More may follow while the disk has room."""

_SUFFIX = ".spill"


class UnreadableEnd(Exception):
    """A line of a spill file is no end of a request: it was cut off, damaged, or written by another version. The text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What Journal.finish was asked to write."""

    row: LogRow
    metrics: tuple[MetricsRow, ...]
    settlements: tuple[Settlement, ...]

    def to_line(self) -> bytes:
        """The end as a line. Raises CorruptRow."""
        body = msgspec.json.encode(
            {
                "row": _columns(LOGS, self.row),
                "metrics": [_columns(METRICS, line) for line in self.metrics],
                "settlements": [asdict(settlement) for settlement in self.settlements],
            }
        )
        return b"%08x %b\n" % (zlib.crc32(body), body)

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """What `to_line` made, without its newline. Raises UnreadableEnd."""
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            raise UnreadableEnd("is cut off or damaged")
        try:
            values = msgspec.json.decode(body)
            return cls(
                row=_row(LOGS, values["row"]),
                metrics=tuple(_row(METRICS, line) for line in values["metrics"]),
                settlements=tuple(map(_settlement, values["settlements"])),
            )
        except (CorruptRow, KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
            raise UnreadableEnd(f"cannot be read: {error}") from None


def _columns(table: Table[Any], row: Any) -> dict[str, Any]:
    return dict(zip(table.names(), table.encode(row), strict=True))


def _row(table: Table[Any], values: dict[str, Any]) -> Any:
    return table.decode([values[name] for name in table.names()])


def _settlement(values: dict[str, Any]) -> Settlement:
    left = {LimitType(kind): count for kind, count in values.get("left", {}).items()}
    return Settlement(**{**values, "reservation": Reservation(**values["reservation"]), "left": left})


class SpillFile:
    """A spill file that is open and locked. Every method may wait for the disk; none may run beside another. All raise OSError."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._end = len(self._text())

    @classmethod
    def make(cls, database: Path, node: str) -> Self:
        """A new file for this process, with room in it. Raises FileExistsError where the node has one already."""
        path = database.with_name(f"{database.name}.{quote(node, safe='')}{_SUFFIX}")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            _lock(descriptor, wait=True)
            if _names(path, descriptor):
                break
            os.close(descriptor)  # somebody took the new file for a dead process's
        file = cls(path, descriptor)
        file._keep_room()
        return file

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """A dead process's file; None where the process is alive, or somebody else has just dealt with its file."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        if _lock(descriptor) and _names(path, descriptor):
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    def append(self, line: bytes) -> int:
        """Write a line so that it survives the loss of power; where it ends. One that cannot be written leaves nothing behind."""
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(line)
        return self._end

    def lines(self) -> list[bytes]:
        """The lines, without their newlines; the last one may be cut off."""
        text = self._text()
        return text.removesuffix(b"\n").split(b"\n") if text else []

    def clear(self, end: int) -> None:
        """Forget all lines, unless some were written after the one that ends here."""
        if self._end == end:
            os.ftruncate(self._descriptor, 0)
            self._end = 0
            self._keep_room()

    def close(self) -> None:
        """Give the file up: it is removed where it holds nothing, else whoever comes next takes care of it."""
        try:
            if self._end == 0:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the file: all that it holds is in the database."""
        self._end = 0
        self.close()

    def _text(self) -> bytes:
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read().rstrip(b"\0")

    def _keep_room(self) -> None:
        if sys.platform == "linux":
            os.posix_fallocate(self._descriptor, 0, ROOM)
        else:
            os.pwrite(self._descriptor, bytes(ROOM), self._end)
        os.fsync(self._descriptor)
        _flush_folder(self.path.parent)


def spill_files(database: Path) -> dict[str, Path]:
    """The spill files beside a database, by the node that each belongs to."""
    prefix = database.name + "."
    found = (path for path in database.parent.iterdir() if path.name.startswith(prefix) and path.name.endswith(_SUFFIX))
    return {unquote(path.name.removeprefix(prefix).removesuffix(_SUFFIX)): path for path in sorted(found)}


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Whether the lock was to be had. It is gone with the process, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Whether this is still the file that the path names: whoever had the lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _flush_folder(folder: Path) -> None:
    """Make sure that a new file's name survives the loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
