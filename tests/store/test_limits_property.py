"""Whatever order reservations, settlements and providers' words on what is left come in: no limit is exceeded, nothing stays reserved."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_server.domain.limits import LimitType, roll, used
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.store import MemoryStore, SqliteStore

LIMITS = {LimitType.REQUESTS_PER_MINUTE: 4, LimitType.TOKENS_PER_MINUTE: 50, LimitType.REQUESTS_PER_DAY: 12}
START = 1_790_000_000_000

Reserve = st.tuples(st.just("reserve"), st.integers(0, 30))
Settle = st.tuples(st.just("settle"), st.integers(0, 100))
Told = st.tuples(st.just("told"), st.integers(0, 100))
Repeat = st.tuples(st.just("repeat"), st.integers(0, 100))
Wait = st.tuples(st.just("wait"), st.integers(0, 90_000))
Steps = st.lists(st.lists(st.one_of(Reserve, Settle, Told, Repeat, Wait), min_size=1, max_size=6), max_size=12)


@dataclass
class Run:
    """One history. What stands together in a step happens at once."""

    store: Any
    now: int = START
    made: int = 0
    open: list[Reservation] = field(default_factory=list)
    settled: list[Settlement] = field(default_factory=list)
    spent: dict[LimitType, int] = field(default_factory=dict)

    async def step(self, actions: list[tuple[str, int]]) -> None:
        await asyncio.gather(*[call for action, number in actions for call in self.calls(action, number)])
        for window in await self.store.list_windows():
            rolled = roll(window, self.now)
            assert used(rolled, self.now) + rolled.reserved <= window.limit_value, window
            assert 0 <= window.lowered <= window.current_usage, window

    def calls(self, action: str, number: int) -> list[Any]:
        if action == "wait":
            self.now += number
        elif action == "reserve":
            self.made += 1
            return [self.reserve(Reservation(request_id=f"r{self.made}", attempt=1, provider="p", model="m", tokens=number))]
        elif action == "repeat" and self.settled:
            return [self.store.settle(self.settled[number % len(self.settled)], self.now)]
        elif action == "settle" and self.open:
            return [self.settle(self.open.pop(number % len(self.open)), number)]
        elif action == "told" and self.open:
            left = {kind: number % (limit + 2) for kind, limit in LIMITS.items()}
            return [self.settle(self.open.pop(number % len(self.open)), number, left)]
        return []

    async def reserve(self, reservation: Reservation) -> None:
        if await self.store.reserve(reservation, LIMITS, self.now) is None:
            self.open.append(reservation)

    async def settle(self, reservation: Reservation, number: int, left: Mapping[LimitType, int] = MappingProxyType({})) -> None:
        tokens = None if number % 3 == 0 else number % (reservation.tokens + 1)
        settlement = Settlement(reservation=reservation, requests=number % 2, tokens=tokens, left=dict(left))
        self.settled.append(settlement)
        await self.store.settle(settlement, self.now)

    async def end(self) -> None:
        while self.open:
            await self.settle(self.open.pop(), 3)
        assert all(window.reserved == 0 for window in await self.store.list_windows())


async def play(store: Any, steps: list[list[tuple[str, int]]]) -> None:
    await store.open()
    try:
        run = Run(store)
        for actions in steps:
            await run.step(actions)
        await run.end()
    finally:
        await store.close()


@settings(max_examples=200, deadline=None)
@given(steps=Steps)
def test_limits_hold_in_memory_whatever_happens(steps: Any) -> None:
    asyncio.run(play(MemoryStore(node="n", clock=lambda: START), steps))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database, so that not every example migrates one."""
    path = tmp_path_factory.mktemp("template") / "empty.db"

    async def make() -> None:
        store = SqliteStore(path, node="n", clock=lambda: START)
        await store.open()
        await store.close()

    asyncio.run(make())
    return path.read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=Steps)
def test_limits_hold_in_sqlite_whatever_happens(template: bytes, steps: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.db"
        path.write_bytes(template)
        asyncio.run(play(SqliteStore(path, node="n", clock=lambda: START, readers=1), steps))
