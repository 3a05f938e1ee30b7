"""The waker: one task sleeps, anybody wakes it."""

import asyncio

from headrace_server.waker import Waker


async def test_a_wake_before_the_wait_is_not_lost():
    waker = Waker()
    waker.wake()
    waker.wake()
    async with asyncio.timeout(10):
        await waker.wait()


async def test_a_wake_counts_once():
    waker = Waker()
    waker.wake()
    await waker.wait()
    sleeper = asyncio.create_task(waker.wait())
    await asyncio.sleep(0.001)
    assert not sleeper.done()
    waker.wake()
    async with asyncio.timeout(10):
        await sleeper


async def test_a_task_that_is_cancelled_in_its_sleep_can_sleep_again():
    waker = Waker()
    sleeper = asyncio.create_task(waker.wait())
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert sleeper.cancelled()
    waker.wake()
    async with asyncio.timeout(10):
        await waker.wait()
