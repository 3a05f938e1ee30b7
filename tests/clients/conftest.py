"""The environment of the scenario for the Python client, and where its results go."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import headrace
from clients.environment import VECTORS, environment
from headrace import aio

VARIABLES = ("HEADRACE_TARGET", "HEADRACE_PROXY", "HEADRACE_VECTORS")


@contextlib.contextmanager
def on_a_thread() -> Iterator[dict[str, str]]:
    """The environment in an event loop of its own, for blocking callers too."""
    found: dict[str, str] = {}
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with environment() as variables:
            found.update(variables)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert started.wait(20), "the environment did not start"
        yield found
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def variables() -> Iterator[dict[str, str]]:
    """The variables of tests/clients/environment.py: those that are set, or those of an environment of our own."""
    if "HEADRACE_TARGET" in os.environ:
        yield {name: os.environ[name] for name in VARIABLES}
        return
    with on_a_thread() as found:
        yield found


@pytest.fixture
def target(variables: dict[str, str]) -> str:
    return variables["HEADRACE_TARGET"]


@pytest.fixture
def proxy(variables: dict[str, str]) -> str:
    return variables["HEADRACE_PROXY"]


@pytest.fixture
def vectors(variables: dict[str, str]) -> Path:
    folder = Path(variables["HEADRACE_VECTORS"])
    assert folder == VECTORS or folder.is_dir()
    return folder


@pytest.fixture
def client(target: str) -> Iterator[headrace.Client]:
    with headrace.Client(target) as client:
        yield client


@pytest.fixture
async def aclient(target: str) -> AsyncIterator[aio.Client]:
    async with aio.Client(target) as client:
        yield client


@pytest.fixture
def step() -> Callable[[str], AbstractContextManager[None]]:
    """`with step("unary"):` what is seen of this step of the scenario is told to HEADRACE_CLIENT_RESULTS, where that is set."""

    @contextlib.contextmanager
    def one(name: str) -> Iterator[None]:
        passed = False
        try:
            yield
            passed = True
        finally:
            if results := os.environ.get("HEADRACE_CLIENT_RESULTS"):
                with open(results, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"language": "python", "step": name, "ok": passed}) + "\n")

    return one
