"""What a loss of power may leave on a disk, from what a program asked of it.

A program runs under strace, and everything that it does to the files of one folder is replayed here. A loss of power keeps what was
flushed: the content of a file at its last fsync, and the names in a folder at the folder's. Of what came after that it keeps or
loses anything, in any order, and of a write only some blocks.

Calls on the folder's files that the replay does not know are an error. Files that are mapped into memory are no files to keep: SQLite's
`-shm` is one, which is made anew whenever it is missing. The folder itself counts as flushed.
"""

import random
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Names with a question mark are no calls on every machine.
_KNOWN = "openat close pwrite64 write ftruncate fallocate fdatasync fsync ?unlink unlinkat"
_REFUSED = "?open ?creat pwritev pwritev2 writev truncate ?dup2 dup dup3 ?rename ?renameat renameat2 ?link linkat mmap"
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*?)(?:\) += (-?\d+|\?|0x[0-9a-f]+).*| <unfinished \.\.\.>)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+|\?|0x[0-9a-f]+).*")


def run_traced(command: Sequence[str], log: Path, folder: Path) -> None:
    """Run a command to its end in a folder; what it asks of disks goes to the file `log`. Raises CalledProcessError."""
    calls = ",".join(f"{_KNOWN} {_REFUSED}".split())
    strace = ["strace", "-f", "--seccomp-bpf", "-xx", "-s", "16777216", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(log)]
    subprocess.run([*strace, *command], cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=60)


@dataclass(eq=False, slots=True)
class Call:
    """A system call of one thread."""

    name: str
    arguments: list[str]
    result: int = -1


@dataclass(frozen=True, slots=True)
class Moment:
    """A call begins, or has returned."""

    call: Call
    is_begin: bool


def read_log(log: Path) -> Iterator[Moment]:
    """What strace saw, in order. Threads wait for strace, so that what follows from a call is never seen before it has returned."""
    unfinished: dict[str, Call] = {}
    with log.open() as lines:
        for line in lines:
            if begun := _BEGUN.match(line):
                thread, name, arguments, result = begun.groups()
                call = Call(name, arguments.split(", "))
                yield Moment(call, is_begin=True)
                if result is None:
                    unfinished[thread] = call
                    continue
            elif resumed := _RESUMED.match(line):
                thread, _, result = resumed.groups()
                call = unfinished.pop(thread)
            elif re.match(r"\d+ +\+\+\+ ", line):
                continue  # a thread has ended
            else:
                raise AssertionError(f"a line of the log that cannot be read: {line[:200]}")
            call.result = -1 if result == "?" else int(result, 0)
            yield Moment(call, is_begin=False)


@dataclass(eq=False, slots=True)
class File:
    """What is behind a name, which may go while the file is still open."""

    flushed: bytearray = field(default_factory=bytearray)


FOLDER = File()
"""Stands for the folder, whose content are names."""

Names = dict[str, File]
Contents = dict[File, bytearray]


@dataclass(frozen=True, eq=False, slots=True)
class Write:
    """Bytes at a place."""

    file: File
    offset: int
    data: bytes

    def apply(self, names: Names, contents: Contents) -> None:
        """A gap before them is zeros."""
        content = contents[self.file]
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data

    def torn(self, block: int) -> Iterator["Write"]:
        """The same in blocks of the disk."""
        at = 0
        while at < len(self.data):
            size = block - (self.offset + at) % block
            yield Write(self.file, self.offset + at, self.data[at : at + size])
            at += size


@dataclass(frozen=True, eq=False, slots=True)
class Resize:
    """Another length: cut off, or filled with zeros."""

    file: File
    size: int
    may_shrink: bool

    def apply(self, names: Names, contents: Contents) -> None:
        """Cut off what is too long, if it may be."""
        content = contents[self.file]
        content.extend(bytes(max(0, self.size - len(content))))
        if self.may_shrink:
            del content[self.size :]


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A name in the folder comes, or goes."""

    name: str
    target: File | None
    file: File = FOLDER

    def apply(self, names: Names, contents: Contents) -> None:
        """Of a name that comes again the last one stands."""
        if self.target is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.target


Change = Write | Resize | Name
Image = dict[str, bytes]
"""The content of every file in the folder, by name."""


class Disk:
    """The folder's files: as they were flushed, and what was asked since then, in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, File] = {}
        self._flushing: dict[Call, list[Change]] = {}
        self._live: Names = {}
        self._flushed: Names = {}
        self.pending: list[Change] = []

    def see(self, moment: Moment) -> None:
        """A call. What it asks counts from its return, and a flush covers what had returned when it began."""
        call = moment.call
        if call.name in ("fdatasync", "fsync"):
            self._flush(call, is_begin=moment.is_begin)
        elif not moment.is_begin and call.result >= 0:
            self._act(call)

    def flushes(self, moment: Moment) -> bool:
        """Whether at this moment something becomes durable."""
        return not moment.is_begin and bool(self._flushing.get(moment.call))

    def image(self, kept: Iterable[Change] = ()) -> Image:
        """The files after a loss of power that kept these of the pending changes."""
        kept = list(kept)
        names = dict(self._flushed)
        changed = {change.file for change in kept}
        contents = {file: bytearray(file.flushed) for file in changed}
        for change in kept:
            change.apply(names, contents)
        return {name: bytes(contents.get(file, file.flushed)) for name, file in names.items()}

    def _flush(self, call: Call, *, is_begin: bool) -> None:
        file = self._open.get(int(call.arguments[0]))
        if file is None:
            return
        if is_begin:
            self._flushing[call] = [change for change in self.pending if change.file is file]
            return
        covered = self._flushing.pop(call)
        if call.result == 0:
            for change in covered:
                change.apply(self._flushed, {file: file.flushed})
            done = set(covered)
            self.pending = [change for change in self.pending if change not in done]

    def _act(self, call: Call) -> None:
        match call.name, call.arguments:
            case "openat", [_, path, flags, *_]:
                self._opened(self._name(path), flags, call.result)
            case "close", [descriptor]:
                self._open.pop(int(descriptor), None)
            case ("unlink", [path]) | ("unlinkat", [_, path, *_]):
                if self._live.pop(name := self._name(path) or "", None):
                    self.pending.append(Name(name, None))
            case "mmap", [_, _, protection, flags, descriptor, _]:
                if "PROT_WRITE" in protection and "MAP_SHARED" in flags and (file := self._open.get(int(descriptor))):
                    self._forget(file)
            case name, [descriptor, *arguments] if descriptor.isdecimal() and (file := self._open.get(int(descriptor))):
                self.pending.append(self._change(file, name, arguments, call.result))
            case name, arguments:
                in_folder = [argument for argument in arguments if argument.startswith('"') and self._name(argument)]
                assert not in_folder, f"{name} is not replayed: {in_folder}"

    def _change(self, file: File, name: str, arguments: list[str], result: int) -> Change:
        match name, arguments:
            case "pwrite64", [data, _, offset]:
                return Write(file, int(offset), _bytes(data)[:result])
            case "ftruncate", [size]:
                return Resize(file, int(size), may_shrink=True)
            case "fallocate", ["0", offset, size]:
                return Resize(file, int(offset) + int(size), may_shrink=False)
        raise AssertionError(f"{name}({', '.join(argument[:40] for argument in arguments)}) is not replayed")

    def _opened(self, name: str | None, flags: str, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        if name == "":
            self._open[descriptor] = FOLDER
        elif name is not None:
            assert not {"O_TRUNC", "O_APPEND"} & set(flags.split("|")), f"{name} is opened with {flags}, which is not replayed"
            if name not in self._live:
                self._live[name] = File()
                self.pending.append(Name(name, self._live[name]))
            self._open[descriptor] = self._live[name]

    def _forget(self, file: File) -> None:
        """A file that is mapped into memory."""
        self.pending = [change for change in self.pending if change.file is not file and getattr(change, "target", None) is not file]
        self._flushed = {name: other for name, other in self._flushed.items() if other is not file}
        self._live = {name: other for name, other in self._live.items() if other is not file}
        self._open = {descriptor: other for descriptor, other in self._open.items() if other is not file}

    def _name(self, argument: str) -> str | None:
        """The name in the folder, "" for the folder; None for what is elsewhere."""
        path = Path(_bytes(argument).decode())
        if path == self._folder:
            return ""
        return path.name if path.parent == self._folder else None


def _bytes(argument: str) -> bytes:
    assert not argument.endswith("..."), "strace has cut off what was written"
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


# ---------------------------------------------------------------- what is kept of what was not flushed

Survivors = Callable[[Sequence[Change], random.Random], Sequence[Change]]


def nothing(pending: Sequence[Change], _: random.Random) -> Sequence[Change]:
    """Only what was flushed."""
    return ()


def everything(pending: Sequence[Change], _: random.Random) -> Sequence[Change]:
    """The disk had written it already."""
    return pending


def beginning(pending: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    """The disk had come so far; the last write is torn."""
    pieces = _torn(pending, chance)
    return pieces[: chance.randint(0, len(pieces))]


def some(pending: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    """Some blocks here and there: few, half, or most of them."""
    share = chance.choice((0.1, 0.5, 0.9))
    return [piece for piece in _torn(pending, chance) if chance.random() < share]


def _torn(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    block = chance.choice((512, 4096))
    return [piece for change in pending for piece in (change.torn(block) if isinstance(change, Write) else (change,))]


# ---------------------------------------------------------------- losses of power


@dataclass(frozen=True, slots=True)
class Loss:
    """The power went just before a flush had returned, so that all that was told since the one before may be wrong. In `told`, the lines
    that the program had begun to write to its standard output by then."""

    number: int
    disk: Disk
    told: Sequence[str]


def losses(log: Path, folder: Path) -> Iterator[Loss]:
    """One at each flush, and one at the end. Between two flushes nothing becomes durable, so that a loss there can only leave what a loss
    at the second one may leave as well, when more was told. The disk and the list go on changing with the next one."""
    disk, told, number = Disk(folder), list[str](), 0
    for moment in read_log(log):
        if disk.flushes(moment):
            yield Loss(number, disk, told)
            number += 1
        if moment.is_begin and moment.call.name == "write" and moment.call.arguments[0] == "1":
            told += _bytes(moment.call.arguments[1]).decode().splitlines()
        disk.see(moment)
    yield Loss(number, disk, told)
