"""The matrix is whole: every row has its test, every script its row, and the document shows them all."""

import ast
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from headrace_server.fake_provider import ready_scripts
from support import fault_document as document
from support.faults import PENDING, ROWS, WAITING

of_the_document = pytest.mark.skipif(bool(os.environ.get("HEADRACE_WRITE_FAULTS")), reason="the document is about to be written")


def rows_with_a_test() -> Counter[str]:
    """The ids of the rows that tests are named after."""
    names = (
        node.name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.AsyncFunctionDef)
    )
    return Counter(name.removeprefix("test_") for name in names if re.fullmatch(r"test_F\d\d", name))


def test_every_row_has_one_test() -> None:
    assert rows_with_a_test() == Counter(set(ROWS) - PENDING)


def test_rows_are_numbered_without_gaps() -> None:
    assert list(ROWS) == [f"F{number:02}" for number in range(1, 86)]
    assert {*PENDING, *WAITING} <= set(ROWS)


@of_the_document
def test_document_shows_every_row_in_order() -> None:
    assert list(document.read()) == list(ROWS)


@of_the_document
def test_every_ready_script_is_in_the_document() -> None:
    shown = set(re.findall(r"^\| (F\d\d[a-z]?) \|", document.TARGET.read_text(encoding="utf-8"), re.MULTILINE))
    assert [name for name in ready_scripts() if name not in shown and name[:3] not in PENDING] == []


def test_every_ready_script_belongs_to_a_row() -> None:
    assert [name for name in ready_scripts() if not re.fullmatch(r"F\d\d[a-z]?", name) or name[:3] not in ROWS] == []
