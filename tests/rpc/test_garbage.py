"""No request leaves anything of ours to the garbage collector, however it ends: all of it goes at once, when it is over."""

import asyncio
import contextlib
import gc
import types
from collections import Counter

import grpc
import pytest

from headrace_server.fake_provider import Break, Step
from support.service import command, events_of, request, service

REQUESTS = 5


async def whole(stubs):
    await stubs.generation.Generate(request())


async def streamed(stubs):
    await events_of(stubs.generation.StreamGenerate(iter([command(request())])))


async def refused(stubs):
    await stubs.generation.Generate(request(max_tokens=-1))


async def left(stubs):
    call = stubs.generation.StreamGenerate(iter([command(request())]))
    async for response in call:
        if any(event.HasField("chunk") for event in response.events):
            break
    call.cancel()


def is_ours(thing):
    """Frames and tracebacks hold everything that their functions did."""
    module = type(thing).__module__
    return isinstance(thing, types.FrameType | types.TracebackType) or (
        module.startswith("headrace") and not module.startswith("headrace_server.fake_provider")
    )


@pytest.fixture
def garbage():
    """What the collector finds, from the time it is called for the first time on."""

    def find():
        gc.collect()
        found = [thing for thing in gc.garbage if is_ours(thing)]
        gc.garbage.clear()
        gc.set_debug(gc.DEBUG_SAVEALL)
        return found

    yield find
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize(
    ("ask", "step"),
    [
        (whole, Step(text="one two three", times=0)),
        (streamed, Step(text="one two three", times=0)),
        (whole, Step(status=400, times=0)),
        (streamed, Step(status=500, times=0)),
        (streamed, Step(text="one two three four", fault=Break(kind="cut", after_events=3), times=0)),
        (left, Step(text="one two three four", fault=Break(kind="stall", after_events=3), times=0)),
        (refused, Step()),
    ],
    ids=["whole", "streamed", "refused by the provider", "failed", "cut", "left", "refused"],
)
async def test_no_request_leaves_garbage(garbage, ask, step, tmp_path):
    async def ask_often():
        for _ in range(REQUESTS):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await ask(stubs)
        async with asyncio.timeout(10):
            while any(task.get_name().startswith(("generation", "HandleExceptions")) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)

    async with service(tmp_path, [step]) as stubs:
        await ask_often()
        gc.disable()
        garbage()
        await ask_often()
        found = garbage()

    assert not found, Counter(type(thing).__qualname__ for thing in found)
