"""Races: whatever meets at the same instant, in whatever order, everything that `invariants` names holds."""

import asyncio
from random import Random
from typing import Any

import pytest

from engine.races import Race
from engine.world import World
from headrace_server.domain.errors import StoreUnavailable
from headrace_server.domain.events import Completed, Failed
from headrace_server.domain.request import GenerateRequest
from headrace_server.engine import Caller
from headrace_server.generation import Generation
from support.engine import provider, request

SEEDS = 500
BLOCKS = 10
"""How many pieces they come in, so that several workers share them."""

MUST_BE_SEEN = {
    "completed",
    "cancelled",
    "timeout",
    "timeout TTFT",
    "timeout STREAM_IDLE",
    "interrupted SHUTTING_DOWN",
    "server_error STORAGE",
    "server_error CIRCUIT_OPEN",
    "rate_limit_exceeded",
    "rate_limit_exceeded QUEUE_FULL",
    "invalid_request ALREADY_EXISTS",
    "retried",
    "out of retries",
    "waited for a limit",
    "limit lowered",
    "queued",
    "waited for readers",
    "circuit opened",
    "probed",
    "circuit closed",
    "circuit reset",
    "fell back",
    "restarted",
    "told again",
    "ended by another node",
}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_is_lost_and_nothing_hidden_whatever_races(block):
    for seed in range(block, SEEDS, BLOCKS):
        wrong = Race(seed).verdict()
        assert not wrong, f"replay it: make simulate SEED={seed}\n" + "\n".join(wrong)


def test_every_turn_is_taken_when_some_of_these_races_are_run():
    missing = set(MUST_BE_SEEN)
    for seed in range(SEEDS):
        race = Race(seed)
        race.verdict()
        missing -= {what for what, times in race.sights().items() if times}
        if not missing:
            break
    assert not missing


def test_a_race_is_told_the_same_way_when_its_seed_is_the_same():
    for seed in range(20):
        one, again = Race(seed), Race(seed)
        assert one.verdict() == again.verdict()
        assert one.witness.story == again.witness.story


# ---------------------------------------------------------------- one id, twice


class Twice(World):
    """Two callers with one request, at one node or at two of them. The store is slow, the provider takes its time, and both do not fail."""

    def __init__(self, seed: int, *, nodes: int) -> None:
        super().__init__(seed)
        for _ in range(nodes):
            self.add_node([provider("first", timeout_ms=600_000)], trouble=0.0)
        for store in self.stores:
            store.never_fail()
        self.generations: list[Generation] = []
        self.drained = 0.0

    async def ask(self, i: int, wanted: GenerateRequest, *, after: float = 0.0, cancel_after: float | None = None) -> None:
        await asyncio.sleep(after)
        engine = self.engines[i]
        generation = engine.start(wanted, Caller())
        self.witness.watch(generation, self.stores[i].node)
        self.generations.append(generation)
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            await engine.cancel(wanted.request_id)
        await self.read(generation)


@pytest.mark.parametrize("policy", ["cancel", "keep"])
@pytest.mark.parametrize("later", [0.0, 0.001, 1.0, 50.0, 500.0])
@pytest.mark.parametrize("nodes", [1, 2])
def test_one_id_is_one_call_when_it_is_asked_for_twice(nodes, later, policy):
    for seed in range(15):
        world, wanted = Twice(seed, nodes=nodes), request(on_disconnect=policy)

        async def play(world: Twice = world, wanted: GenerateRequest = wanted) -> None:
            await asyncio.gather(world.ask(0, wanted), world.ask(nodes - 1, wanted, after=later))

        assert world.run(play()) == [], f"seed {seed}"
        one, other = (generation.outcome for generation in world.generations)
        assert len(world.witness.calls) == 1
        assert isinstance(one, Completed)
        assert one == other


@pytest.mark.parametrize("nodes", [1, 2])
def test_one_id_is_at_most_one_call_when_it_is_asked_for_twice_and_cancelled(nodes):
    ends = set()
    for seed in range(60):
        world, wanted = Twice(seed, nodes=nodes), request()
        after = world.random.choice((0.0, 0.0005, 0.005, 0.5, 5.0))

        async def play(world: Twice = world, wanted: GenerateRequest = wanted, after: float = after) -> None:
            await asyncio.gather(world.ask(0, wanted, cancel_after=after), world.ask(nodes - 1, wanted))

        assert world.run(play()) == [], f"seed {seed}"
        assert len(world.witness.calls) <= 1
        ends |= {type(generation.outcome) for generation in world.generations}
    assert ends == {Completed, Failed}


# ---------------------------------------------------------------- what the dice show too seldom


def test_draining_is_done_at_once_when_what_runs_only_waits_for_another_node():
    for seed in range(40):
        world, wanted = Twice(seed, nodes=2), request()

        async def drain(world: Twice = world) -> None:
            await asyncio.sleep(5)
            await world.engines[1].drain(0)
            world.drained = world.loop.time()

        async def play(world: Twice = world, wanted: GenerateRequest = wanted) -> None:
            await asyncio.gather(world.ask(0, wanted), world.ask(1, wanted, after=2.5), drain())

        assert world.run(play()) == [], f"seed {seed}"
        assert world.drained < 10, f"seed {seed}"
        assert len(world.witness.calls) == 1


def test_an_answer_is_told_whole_again_when_some_of_its_kept_events_were_lost():
    for seed in range(60):
        world, wanted = Twice(seed, nodes=1), request(on_disconnect="keep")
        (store,) = world.stores
        keep = store.keep_events

        def lose_some(*args: Any, keep: Any = keep, random: Random = world.random) -> asyncio.Future[None]:
            if random.random() < 0.7:
                return keep(*args)
            lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            lost.set_exception(StoreUnavailable("the store is out of reach"))
            return lost

        store.keep_events = lose_some

        async def play(world: Twice = world, wanted: GenerateRequest = wanted) -> None:
            await asyncio.gather(world.ask(0, wanted), world.ask(0, wanted, after=500))

        assert world.run(play()) == [], f"seed {seed}"
        one, again = (generation.outcome for generation in world.generations)
        assert one == again
