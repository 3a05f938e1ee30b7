"""docs/origin.md names code and tests for every line of the original design: they are there, and no line lacks its test."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headrace_server.domain.lifecycle import Event
from headrace_server.store.defaults import default_providers

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server" / "headrace_server"
PROTOS = ROOT / "proto" / "headrace" / "v1"
PAGE = (ROOT / "docs" / "origin.md").read_text(encoding="utf-8")

REFERENCE = re.compile(r"`([\w./-]+(?:\.(?:py|sql|proto|md)|/))(?:::([\w.]+))?`")
"""A file or folder, and perhaps a name in it."""
TEST = re.compile(r"`tests/[\w/]+\.py::test_\w+`")
NOT_YET = "**not yet**"

DEFINED_IN = {
    ".sql": r"CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER|VIEW) {}\b",
    ".proto": r"\b(?:rpc|message|enum) {}\b",
}


@cache
def names_in(file: Path) -> frozenset[str]:
    """Everything that a Python file defines."""
    return frozenset(names_of(ast.parse(file.read_text(encoding="utf-8"))))


def names_of(node: ast.AST, inside: str = "") -> Iterator[str]:
    """The names that a module or class defines, members of classes as `Class.member`."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield inside + name
            case ast.ClassDef(name=name):
                yield inside + name
                yield from names_of(child, f"{inside}{name}.")
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield inside + name


def is_there(path: str, name: str) -> bool:
    """Whether a file is there, below the repository or the server, and defines the name."""
    file = next((base / path for base in (ROOT, SERVER) if (base / path).exists()), None)
    if file is None or not name:
        return file is not None
    if file.suffix == ".py":
        return name in names_in(file)
    return re.search(DEFINED_IN[file.suffix].format(re.escape(name)), file.read_text(encoding="utf-8")) is not None


def tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Every table of the page: its header, and its lines."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in block.splitlines()]
        yield header, lines


def table(*header: str) -> list[list[str]]:
    """The lines of the table with this header."""
    (lines,) = [lines for found, lines in tables() if found == list(header)]
    return lines


def test_everything_that_the_page_names_is_there() -> None:
    named = REFERENCE.findall(PAGE)
    assert len(named) > 200
    assert [text for text in re.findall(r"`[^`\n]*::[^`\n]*`", PAGE) if not REFERENCE.fullmatch(text)] == []
    assert [f"{path}::{name}" for path, name in named if not is_there(path, name)] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("domain/nowhere.py", ""),
        ("domain/machine.py", "retreat"),
        ("domain/machine.py", "Context.retreat"),
        ("domain/machine.py", "with_tag"),  # a method stands below its class
        ("tests/test_origin.py", "test_nothing"),
        ("migrations/sqlite/0002_views.sql", "provider_success"),
        ("proto/headrace/v1/provider_service.proto", "ListCircuits"),
    ],
)
def test_name_is_missed_when_it_is_not_there(path: str, name: str) -> None:
    assert not is_there(path, name)


def test_every_line_has_its_test_or_says_not_yet() -> None:
    checked = [(line, len(header)) for header, lines in tables() if header[-1] == "test" for line in lines]
    assert len(checked) > 80
    assert [line for line, width in checked if len(line) != width or not (TEST.search(line[-1]) or NOT_YET in line[-1])] == []


def test_every_rpc_of_the_contract_is_there() -> None:
    rpcs = [
        (file.stem, rpc) for file in PROTOS.glob("*_service.proto") for rpc in re.findall(r"^  rpc (\w+)\(", file.read_text(), re.MULTILINE)
    ]
    assert len(rpcs) > 20
    missing = [
        f"{file}/{rpc}"
        for file, rpc in rpcs
        if not is_there(f"rpc/{file}.py", f"{file.removesuffix('_service').capitalize()}Servicer.{rpc}")
    ]
    assert missing == []


def test_every_event_of_the_machine_stands_in_the_table_of_events() -> None:
    events = [event for line in table("original event", "comes from", "event here", "test") for event in re.findall(r"`(\w+)`", line[2])]
    assert set(events) == {event.value for event in Event}


def test_default_models_are_those_of_a_new_database() -> None:
    today = {provider: model for provider, _, model in table("provider", "original default model", "default model today")}
    assert today == {row.provider: row.default_model for row in default_providers(0)}
