"""The collector's plan, on a loop whose clock is turned by hand."""

import asyncio
import gc
import weakref

import pytest

from headrace_server.garbage import ALL_EVERY, NEW_EVERY, collect_garbage
from support.clock import ClockLoop


class Circle:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def python_collects_again():
    yield
    gc.unfreeze()
    gc.enable()


def play(turns):
    """Play a coroutine function that is given a function which lets time pass."""

    async def played():
        async def wait(seconds):
            loop.advance(seconds)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        collect_garbage()
        await turns(wait)

    loop = ClockLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(played())


@pytest.mark.usefixtures("python_collects_again")
def test_what_is_new_is_looked_at_soon_and_again_and_again():
    async def turns(wait):
        for _ in range(3):
            seen = weakref.ref(Circle())
            assert seen() is not None
            await wait(NEW_EVERY)
            assert seen() is None

    play(turns)


@pytest.mark.usefixtures("python_collects_again")
def test_what_has_stayed_is_looked_at_with_everything_only():
    async def turns(wait):
        for _ in range(2):
            stays = Circle()
            await wait(NEW_EVERY)
            seen = weakref.ref(stays)
            del stays
            await wait(NEW_EVERY)
            assert seen() is not None
            await wait(ALL_EVERY)
            assert seen() is None

    play(turns)


@pytest.mark.usefixtures("python_collects_again")
def test_what_has_stayed_and_is_no_circle_goes_by_itself():
    async def turns(wait):
        stays = {"it": {"holds": "another"}, "circle": set()}
        seen = weakref.ref(stays["circle"])
        await wait(NEW_EVERY)
        del stays
        assert seen() is None
        assert not gc.isenabled()

    play(turns)
