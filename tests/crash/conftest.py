"""One nursery for all crash tests of a run; a fresh stage for each."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from crash.nursery import Nursery
from crash.stage import Stage
from headrace_server.fake_provider import FakeProvider


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


@pytest.fixture
async def stage(nursery: Nursery, tmp_path: Path) -> AsyncIterator[Stage]:
    async with FakeProvider() as provider:
        yield Stage(tmp_path, provider, nursery)
        await nursery.stop()
