"""Plays the rows of the fault matrix, on every store, and compares what was seen with docs/faults.md; see support/faults.py."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace_server import app
from support import fault_document as document
from support.clock import ClockLoop
from support.faults import PENDING, ROWS, Row

WRITE = "HEADRACE_WRITE_FAULTS"
LINES = "fault matrix"
"""Property of a test: the id of its row and the lines it saw."""

_failed: pytest.StashKey[bool] = pytest.StashKey()
_seen: dict[str, list[str]] = {}


def pytest_asyncio_loop_factories() -> dict[str, type[asyncio.AbstractEventLoop]]:
    """Tests here move their clock on."""
    return {"clock": ClockLoop}


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> ClockLoop:
    """The loop of the test. The wall clock goes with it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    monkeypatch.setattr(app, "wall_clock", lambda: time.time_ns() // 1_000_000 + round(loop.offset * 1000))
    return loop


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.slow), "sqlite"])
async def row(request: pytest.FixtureRequest, tmp_path: Path, clock: ClockLoop) -> AsyncIterator[Row]:
    """The row that the test is named after, on each store."""
    name = request.node.originalname.removeprefix("test_")
    told = Row(name, request.param, tmp_path, clock)
    yield told
    if request.node.stash.get(_failed, True):
        return
    lines = told.lines()
    if os.environ.get(WRITE):
        request.node.user_properties.append((LINES, [name, lines]))
    else:
        assert lines == document.read().get(name, []), "what was seen is not what docs/faults.md says"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember for the fixtures whether the test itself failed."""
    report = yield
    if report.when == "call":
        item.stash[_failed] = not report.passed
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the lines, also where several processes share the tests."""
    if report.when == "teardown" and report.passed:
        _seen.update({row: lines for name, (row, lines) in (p for p in report.user_properties if p[0] == LINES)})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the document, if that is wanted."""
    if os.environ.get(WRITE) and not hasattr(session.config, "workerinput"):
        document.write(_seen, ROWS, PENDING)
