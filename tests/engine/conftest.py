from collections.abc import Callable, Sequence
from typing import Any

import pytest

from headrace_server.domain.provider import Provider
from headrace_server.providers.scripted import Script
from support.engine import Bench, provider

FIRST_AND_SECOND = (provider("first"), provider("second", priority=200))


@pytest.fixture
async def make_bench() -> Callable[..., Any]:
    """Make an engine whose providers play these scripts; they are `first` and `second` unless given."""

    async def make(*scripts: Script, providers: Sequence[Provider] = FIRST_AND_SECOND, **settings: int) -> Bench:
        return await Bench(scripts, providers, **settings).open()

    return make
