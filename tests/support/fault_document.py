"""docs/faults.md: what every row of the fault matrix was seen to do."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md"

INTRODUCTION = """# What happens when something fails

Made by `HEADRACE_WRITE_FAULTS=1 pytest tests/faults` from what the tests saw; without the variable they fail where it says anything else.
Each row is played over real sockets, on every store there is: the service in front of providers that fail as a script tells them to. Rows
about the troubles of a database, and about the death of a process, are played on SQLite: a store in memory knows no such troubles, and does
not outlive its process.

`p` is asked first: up to three times, waiting 1 s, then 2 s, … up to 10 s, each ±20 %. `f` stands in for it and is asked once. Callers see
the gRPC status, with the reason (and the finer word within it) of its `ErrorInfo` and the names of its other details; the record is the row
that `GetRequest` shows; calls are the HTTP requests that reached each provider.

To see a row yourself: `headrace fake-provider --script F02` plays it, and prints the configuration of the service and the request to send.

| script | fault | the caller sees | on record | calls |
| --- | --- | --- | --- | --- |
"""


def cells(*texts: str) -> str:
    """A line of the table."""
    return "| " + " | ".join(" ".join(text.replace("|", "\\|").split()) for text in texts) + " |"


def read() -> dict[str, list[str]]:
    """The lines of the document, by the id of their row."""
    found: dict[str, list[str]] = {}
    for line in TARGET.read_text(encoding="utf-8").splitlines() if TARGET.exists() else ():
        if row := re.match(r"\| (F\d\d)", line):
            found.setdefault(row[1], []).append(line)
    return found


def write(seen: Mapping[str, Sequence[str]], rows: Mapping[str, str], pending: set[str]) -> None:
    """Put the lines of these rows in place of what was there."""
    lines = {**read(), **seen}
    text = INTRODUCTION
    for row, fault in rows.items():
        written = [cells(row, fault, "not tested yet", "", "")] if row in pending else lines.get(row, [])
        text += "".join(line + "\n" for line in written)
    TARGET.write_text(text, encoding="utf-8")
