"""Rows F78 to F82: a store in trouble, and what happens twice or at the same moment.

A store in memory knows none of these troubles, so F78 to F80 are about databases.
"""

import asyncio
import os
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from headrace.v1 import generation_service_pb2 as pb
from headrace_server.app import check_store
from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.record import LogRow
from support.faults import Row, Stage
from support.seen import Seen
from support.service import command, details, events_of, kinds, text_of
from support.store import listed
from support.trouble import NOT_SERVING, SERVING, a_lock, full, health_turns, locked, read_only, status_of

on_disk = pytest.mark.parametrize("row", ["sqlite"], indirect=True)
BUSY = 300
"""Milliseconds that a statement waits for another program's lock in these rows; a transaction is tried three times."""

LARGE = {"messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "x" * 100_000}]}]}
"""A request for which a database without free pages has no room."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as ever, sooner."""
    monkeypatch.setattr("headrace_server.store.connection.BUSY_TIMEOUT", BUSY)
    monkeypatch.setattr("headrace_server.app.HEALTH_INTERVAL", 0.02)


def is_refused(seen: Seen) -> None:
    """Nobody was called, and nothing is on record."""
    assert seen.status is StatusCode.UNAVAILABLE
    assert (seen.details["ErrorInfo"].reason, seen.info["subreason"]) == ("SERVER_ERROR", "STORAGE")
    assert seen.row is None
    assert set(seen.calls.values()) == {0}


async def asked_in(row: Row, trouble: Any, case: str, rpc: str = "StreamGenerate") -> None:
    """A request while the store is in this trouble, and the next one after it."""
    async with row.stage(row.id) as stage:
        (await stage.ask()).answers(by="p", text="The answer.")
        stage.leave_out_calls()
        async with trouble(stage, row.database):
            seen = await stage.ask(LARGE, rpc=rpc)
            is_refused(seen)
            if row.id == "F78":
                await health_turns(stage.channel, NOT_SERVING)
        await health_turns(stage.channel, SERVING)
        (await stage.ask()).answers(by="p")
        assert len(await listed(stage.app.store)) == 2
        assert check_store(row.database) == []
    row.add(seen, case)


@on_disk
@pytest.mark.usefixtures("quick")
async def test_F78(row: Row) -> None:
    await asked_in(row, a_lock, "another program holds its lock")
    await asked_in(row, read_only, "it takes no writes")
    await asked_in(row, read_only, "it takes no writes; Generate", "Generate")


@on_disk
@pytest.mark.usefixtures("quick")
async def test_F79(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bytes] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        fsync(file)
        flushed.extend(spill.read_bytes() for spill in row.database.parent.glob("*.spill"))

    async with row.stage("F79") as stage:
        call, request = stage.begin()
        events = []
        stream = aiter(call)
        while "chunk" not in kinds(events):
            events += (await anext(stream)).events
        await until_state(stage, request, State.STREAMING)
        monkeypatch.setattr(os, "fsync", watched)
        async with locked(row.database):
            stage.clock.advance(10)
            while "completed" not in kinds(events):
                events += (await anext(stream)).events
            assert request.request_id.encode() in flushed[-1], "the end was on the disk when it was told"
            assert (await in_database(stage, request)).state is State.STREAMING
            await health_turns(stage.channel, NOT_SERVING)
        await health_turns(stage.channel, SERVING)
        seen = await stage.seen(request, events, None)
        assert await in_database(stage, request) == seen.row
        assert len(await stage.app.store.list_metrics(request.request_id)) == 1  # type: ignore[attr-defined]
        windows = {window.limit_type.value: window for window in await stage.app.store.list_windows()}
        assert {name: window.reserved for name, window in windows.items()} == {"requests_per_day": 0, "tokens_per_minute": 0}
        assert windows["requests_per_day"].current_usage == 1
        assert windows["tokens_per_minute"].current_usage + windows["tokens_per_minute"].previous_usage == 9
        assert check_store(row.database) == []
    seen.answers(by="p", text="one two three four")
    assert seen.calls == {"p": 1}
    row.add(seen, "its end waits in the spill file, and is written once when the store is back")


async def in_database(stage: Stage, request: Any) -> LogRow:
    """The row as the database has it, whatever waits beside it."""
    (found,) = await listed(stage.app.store)
    assert found.request_id == request.request_id
    return found


async def until_state(stage: Stage, request: Any, state: State) -> None:
    while (await in_database(stage, request)).state is not state:
        await asyncio.sleep(0.005)


@on_disk
@pytest.mark.usefixtures("quick")
async def test_F80(row: Row) -> None:
    async with row.stage("F80") as stage:
        async with locked(row.database):
            tries = await tries_of(stage)
            asking = asyncio.create_task(stage.ask())
            while len(tries) < 2:
                await asyncio.sleep(0.005)
            assert not asking.done()
            assert stage.provider.requests == []
        seen = await asking
        assert await status_of(stage.channel) == SERVING
        assert check_store(row.database) == []
    seen.answers(by="p", text="The answer.")
    assert seen.calls == {"p": 1}
    row.add(seen, "it is locked, and free again before the third try")
    await asked_in(row, a_lock, "it is locked for longer than that")
    await asked_in(row, full, "it is full")


async def tries_of(stage: Stage) -> list[str]:
    """The transactions that the store begins from now on, again and again where it finds the lock taken."""
    store: Any = stage.app.store
    tries: list[str] = []
    await store._writer._connection.set_trace_callback(lambda statement: tries.append(statement) if "BEGIN" in statement else None)
    return tries


async def test_F81(row: Row) -> None:
    async with row.stage("F81") as stage:
        call, request = stage.begin()
        other = type(request).FromString(request.SerializeToString())
        other.messages[0].content[0].text = "Say goodbye"
        one, two = aiter(call), aiter(stage.generation.StreamGenerate(iter([command(request)])))
        first, second = [], []
        while "chunk" not in kinds(first):
            first += (await anext(one)).events
        whole = stage.generation.Generate(request)
        while "chunk" not in kinds(second):
            second += (await anext(two)).events
        await is_another(stage, other)
        stage.clock.advance(10)
        first += await events_of(one)
        second += await events_of(two)
        seen = await stage.seen(request, first, None)
        seen.answers(by="p", text="one two three four")
        assert first == second
        assert (await whole).result == first[-1].completed
        row.add(seen, "both get the whole answer")

        for case, later in (("after its end", 0), ("when nothing of it is in memory any more", 61)):
            stage.clock.advance(later)
            again = await events_of(stage.generation.StreamGenerate(iter([command(request)])))
            assert text_of(again) == "one two three four"
            assert again[-1] == first[-1]
            assert (await stage.generation.Generate(request)).result == first[-1].completed
            await is_another(stage, other)
            seen = await stage.seen(request, again, None)
            assert seen.calls == {"p": 1}
            row.add(seen, case)
        assert [found.request_id for found in await listed(stage.app.store)] == [request.request_id]
    row.tell(
        "F81", "the same id with another prompt, while it runs and afterwards", "ALREADY_EXISTS, INVALID_REQUEST", "the row stands", "p 1"
    )


async def is_another(stage: Stage, other: Any) -> None:
    """The id belongs to a request with other content."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.generation.Generate(other)
    assert caught.value.code() is StatusCode.ALREADY_EXISTS
    assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "ALREADY_EXISTS"


async def test_F82(row: Row) -> None:
    ends = set()
    async with row.stage("F82") as stage:
        for moment in range(40):
            stage.leave_out_calls()
            request = stage.request()
            events, error = await cancelled_at(stage, request, moment % 12)
            seen = await stage.seen(request, events, error)
            (last,) = (event for event in events if event.WhichOneof("event") in ("completed", "failed"))
            assert last == events[-1]
            assert seen.row is not None
            assert [step.to_state for step in seen.row.transitions if step.to_state in TERMINAL] == [seen.row.state]
            if last.WhichOneof("event") == "completed":
                seen.answers(by="p", text="one two three four five six")
            else:
                assert (seen.row.state, str(seen.row.error_code)) == (State.FAILED, "cancelled")
                assert "one two three four five six".startswith(seen.partial_text)
            assert sum(seen.calls.values()) <= 1
            ends.add(seen.row.state)
            await is_the_end(stage, seen.row)
        assert len(await listed(stage.app.store)) == 40
    assert ends == {State.COMPLETED, State.FAILED}
    row.tell("F82", stage.script.about, "`completed` and OK, or `failed` and CANCELLED", "the same one of the two, once", "p at most 1")


async def cancelled_at(stage: Stage, request: Any, moment: int) -> tuple[list[Any], grpc.aio.AioRpcError | None]:
    """Cancel on the stream itself, once so many events have come; all that came, and the status where it is not OK."""
    cancel = asyncio.Event()

    async def commands() -> Any:
        yield command(request)
        await cancel.wait()
        yield pb.StreamGenerateRequest(cancel=pb.CancelCommand(request_id=request.request_id))

    events: list[Any] = []
    try:
        async for response in stage.generation.StreamGenerate(commands()):
            events += response.events
            if len(events) > moment or kinds(events)[-1] in ("completed", "failed"):
                cancel.set()
    except grpc.aio.AioRpcError as error:
        return events, error
    return events, None


async def is_the_end(stage: Stage, standing: LogRow) -> None:
    """What comes to the store later finds the row ended, and leaves it."""
    late = standing.model_copy(update={"state": State.FAILED if standing.state is State.COMPLETED else State.COMPLETED, "tags": ("late",)})
    assert await stage.app.store.finish(late, [], []) == standing
    await stage.app.store.update(late)
    assert await stage.app.store.get(standing.request_id) == standing
