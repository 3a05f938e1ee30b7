"""Deadlines that move: clocks that say when to look again, and the alarm that looks."""

import asyncio

import pytest

from headrace_server.alarm import Alarm, AlarmRang
from headrace_server.clocks import Clocks
from headrace_server.domain.errors import Subreason


def clocks(**periods: float) -> Clocks:
    return Clocks(**{"first_token": 30, "idle": 30, "progress": 120, "started": 100} | periods)


def test_clocks_are_looked_at_before_the_first_one_can_run_out():
    quick_when_it_speaks = clocks(idle=2)
    assert quick_when_it_speaks.look(100) == 102  # the first byte may come at once
    quick_when_it_speaks.saw(101, content=True)
    assert quick_when_it_speaks.look(102) == 103
    assert quick_when_it_speaks.look(103) is None
    assert quick_when_it_speaks.next() == (103, Subreason.STREAM_IDLE)


def test_clocks_that_were_moved_on_are_looked_at_later():
    moved = clocks(first_token=5, idle=5)
    assert moved.look(100) == 105
    moved.saw(104, content=True)
    assert moved.look(105) == 109


def test_clocks_that_stand_still_never_run_out():
    stopped = clocks(first_token=5)
    stopped.stop(101)
    assert stopped.look(1_000) == 1_005


async def test_an_alarm_ends_what_is_awaited_once_its_time_has_passed():
    asked = []

    def look(now: float) -> float | None:
        asked.append(now)
        return now + 0.005 if len(asked) < 3 else None

    with pytest.raises(AlarmRang), Alarm(look):
        await asyncio.sleep(60)

    assert len(asked) == 3
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_alarm_that_was_left_rings_no_more():
    asked = []

    def look(now: float) -> float | None:
        asked.append(now)
        return now + 0.001 if len(asked) == 1 else None

    with Alarm(look):
        pass
    await asyncio.sleep(0.005)
    assert len(asked) == 1


async def test_a_task_that_is_cancelled_as_its_alarm_rings_stays_cancelled():
    begun = asyncio.Event()
    ringing: list[bool] = []

    async def work() -> None:
        with Alarm(lambda now: None if ringing else now + 0.001):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await begun.wait()
    ringing.append(True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_errors_pass_through_an_alarm():
    with pytest.raises(KeyError), Alarm(lambda now: now + 60):
        raise KeyError
