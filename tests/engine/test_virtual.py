"""The virtual loop itself: time, order, and what it finds at the end."""

import asyncio

import pytest

from engine.virtual import Deadlock, VirtualLoop


async def _interleaving() -> list[str]:
    order: list[str] = []

    async def count(name: str) -> None:
        for i in range(4):
            order.append(f"{name}{i}")
            await asyncio.sleep(0)

    await asyncio.gather(*(count(name) for name in "abc"))
    return order


def _run(seed: int, main):
    loop = VirtualLoop(seed)
    try:
        return loop.run(main)
    finally:
        loop.close()


def test_hours_pass_at_once_and_exactly_when_tasks_sleep():
    loop = VirtualLoop(1)

    async def sleep() -> list[float]:
        times = []
        for hours in (1, 0.5, 0):
            await asyncio.sleep(hours * 3600)
            times.append(loop.time())
        return times

    assert loop.run(sleep()) == [3600, 5400, 5400]
    loop.close()


def test_an_interleaving_comes_again_when_its_seed_does():
    assert [_run(seed, _interleaving()) for seed in range(30)] == [_run(seed, _interleaving()) for seed in range(30)]


def test_many_interleavings_are_seen_when_seeds_differ():
    seen = {tuple(_run(seed, _interleaving())) for seed in range(60)}

    assert len(seen) > 20
    assert all([step for step in order if step[0] == name] == [f"{name}{i}" for i in range(4)] for order in seen for name in "abc")


def test_plain_callbacks_keep_their_order_whatever_the_seed():
    async def schedule() -> list[int]:
        order: list[int] = []
        for i in range(10):
            asyncio.get_running_loop().call_soon(order.append, i)
        while len(order) < 10:
            await asyncio.sleep(0)
        return order

    assert all(_run(seed, schedule()) == list(range(10)) for seed in range(20))


def test_timers_of_one_instant_run_in_any_order():
    async def sleep_together() -> tuple[int, ...]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for i in range(3):
            loop.call_at(1.0, order.append, i)
        await asyncio.sleep(2)
        return tuple(order)

    assert len({_run(seed, sleep_together()) for seed in range(60)}) == 6


def test_a_deadlock_is_told_when_everything_waits():
    loop = VirtualLoop(1)
    waiting = loop.create_task(asyncio.Event().wait())

    with pytest.raises(Deadlock):
        loop.run_forever()

    waiting.cancel()
    loop.run(asyncio.wait([waiting]))
    loop.close()


def test_what_is_left_is_told_when_tasks_run_on_and_exceptions_are_not_fetched():
    loop = VirtualLoop(1)

    async def leave_things_behind() -> asyncio.Task[None]:
        loop.create_future().set_exception(ValueError("lost"))
        loop.call_soon(lambda: 1 / 0)
        task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
        await asyncio.sleep(1)
        return task

    task = loop.run(leave_things_behind())
    left = "\n".join(loop.leftovers())

    assert "the task forgotten is still running" in left
    assert "ValueError('lost')" in left
    assert "ZeroDivisionError" in left
    loop.run(task)
    assert not list(loop.leftovers())[2:]
    loop.close()


def test_one_may_look_after_every_step_and_before_time_passes():
    loop, steps, rests = VirtualLoop(1), [], []
    loop.after_step = lambda: steps.append(loop.time())
    loop.at_rest = lambda: rests.append(loop.time())

    async def sleep_twice() -> None:
        await asyncio.sleep(1)
        await asyncio.sleep(0)
        await asyncio.sleep(2)

    loop.run(sleep_twice())
    loop.close()
    assert rests == [0, 1]
    assert len(steps) > 4
    assert steps == sorted(steps)
