"""What the kernel says of a process and all of its descendants: processor time and memory. Linux only."""

import os
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name of the command, which may hold anything; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root: int) -> list[int]:
    """A process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """Processor time, user and system, of all threads of the tree, those that have ended included."""
    ticks = 0
    for pid in tree(root):
        if fields := _stat(pid):
            # utime, stime, and those of children that have ended and were waited for
            ticks += sum(int(field) for field in fields[11:15])
    return ticks * TICK


def resident_bytes(root: int) -> int:
    """Memory that is resident, of the whole tree. Pages that processes share count for each."""
    return sum(int(fields[21]) * PAGE for pid in tree(root) if (fields := _stat(pid)))
