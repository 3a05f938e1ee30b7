"""The world around engines in a simulation: nodes that share a store which is slow and fails, and providers that do what they like."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from engine.breaker import WitnessedHealth
from engine.canary import Ears, WitnessedTelemetry, leaks
from engine.invariants import after_recovery, at_rest, violations
from engine.places import WitnessedQueues
from engine.tally import WitnessedCounters
from engine.upstream import WildUpstream
from engine.virtual import VirtualLoop
from engine.witness import Witness
from headrace_server.catalog import Catalog
from headrace_server.domain.errors import HeadraceError, StoreUnavailable
from headrace_server.domain.events import GenerationEvent
from headrace_server.domain.limits import LimitType, Refused
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.result import GenerationResult
from headrace_server.engine import Engine, EngineSettings
from headrace_server.generation import Generation
from headrace_server.keeper import without_gaps
from headrace_server.replay import salvage
from headrace_server.rpc.codec_event import StoredEvents
from headrace_server.store.memory import MemoryStore
from support.engine import START, PlainCipher

T = TypeVar("T")

LONGEST = 4_000.0
"""Seconds after which everything must have ended: longer than the longest deadline and all that may come before it."""


class World:
    """Nodes that share one store and one virtual clock. Everything in it follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.loop = VirtualLoop(seed)
        self.loop.after_step, self.loop.at_rest = self._after_step, self._at_rest
        self.witness = Witness(self.loop)
        self.telemetry = WitnessedTelemetry(self.witness)
        self.skew = 0
        """Milliseconds by which the wall clock is off."""
        self.shared = MemoryStore(node="shared", clock=self.clock)
        self.counters = self.shared._counters = WitnessedCounters(self.witness)
        self.stores: list[NodeStore] = []
        self.engines: list[Engine] = []
        self.catalogs: list[Catalog] = []
        self.upstreams: list[WildUpstream] = []
        self._healths: list[WitnessedHealth] = []
        self._queues: list[WitnessedQueues] = []

    def clock(self) -> int:
        return START + self.skew + round(self.loop.time() * 1000)

    def set_clock(self, skew: int) -> None:
        """Set the wall clock off by so many milliseconds."""
        self.skew, self.counters.clock_is_sound = skew, False

    def add_node(self, providers: Sequence[Provider], *, trouble: float) -> Engine:
        """A process with an engine of its own. `trouble`: how often a call of its providers goes wrong."""
        node = f"node-{len(self.engines) + 1}"
        store = NodeStore(self.shared, node, self.witness, self.random)
        health = WitnessedHealth(self.witness, node, self.clock)
        queues = WitnessedQueues(self.witness, node, health)
        catalog = Catalog(self.shared, PlainCipher(), from_file=providers, health_rank=health.rank)
        upstream = WildUpstream(self.shared, self.witness, self.random, queues, node=node, clock=self.clock, trouble=trouble)
        engine = Engine(
            journal=store,
            upstream=upstream,
            routes=catalog,
            codec=StoredEvents(),
            telemetry=self.telemetry,
            node=node,
            clock=self.clock,
            settings=EngineSettings(memory_per_generation=self.random.choice((400, 1024 * 1024))),
            random=self.random.random,
            health=health,
        )
        engine.queues, engine._world = queues, replace(engine._world, queues=queues)
        self.stores.append(store)
        self.engines.append(engine)
        self.catalogs.append(catalog)
        self.upstreams.append(upstream)
        self._healths.append(health)
        self._queues.append(queues)
        for each in providers:
            self._note_places(each)
        return engine

    def set_provider(self, i: int, changed: Provider) -> None:
        """A change of a provider's settings has reached node `i`."""
        self._note_places(changed)
        self.catalogs[i]._providers[changed.provider] = changed

    def _note_places(self, each: Provider) -> None:
        most = self.witness.most_places
        most[each.provider] = max(most[each.provider], each.config.max_concurrent_requests or 0)

    def run(self, play: Coroutine[Any, Any, None]) -> list[str]:
        """Play to the end, wait until all is quiet, and return what was not as it must be."""
        try:
            with Ears(self.witness):
                self.loop.run(self.shared.open())
                self.loop.run(play)
                self.loop.run(self._wait_until_quiet())
                for queues in self._queues:
                    queues.look_at_the_end()
                wrong = [*self.loop.leftovers(), *violations(self.witness, self.shared, self.telemetry.traces)]
                self.loop.run(self.sweep())
                wrong += [*after_recovery(self.shared), *leaks(self.witness, self.shared)]
                return wrong
        except Exception as error:  # noqa: BLE001 - the run is over, and its seed tells how it came about
            return [f"it broke off: {error!r}", *self.witness.wrong]
        finally:
            self.loop.close()

    def _after_step(self) -> None:
        for queues in self._queues:
            queues.look()

    def _at_rest(self) -> None:
        for health in self._healths:
            health.look()
        writing = {request_id for store in self.stores for request_id, count in store.writing.items() if count}
        for wrong in at_rest(self.witness, self.shared, writing):
            self.witness.blame(wrong)

    async def _wait_until_quiet(self) -> None:
        if running := [told.generation.task for told in self.witness.told.values() if told.generation.task is not None]:
            await asyncio.wait(running, timeout=LONGEST)
        await asyncio.sleep(2 * EngineSettings().replay_window / 1000)
        left = [generation for engine in self.engines for generation in engine._generations.values()]
        self.witness.wrong += [f"{generation.request_id}: still in memory" for generation in left]

    async def read(self, generation: Generation, patience: float = LONGEST) -> None:
        """Read as a servicer does, and leave when patience is at its end."""
        woken = asyncio.Event()
        reader = generation.attach(0, woken.set)
        pace = self.random.choice((0.0, 0.0, 0.0, 0.01, 1.0, 5.0))
        got: list[GenerationEvent] = []
        with contextlib.suppress(TimeoutError, HeadraceError):
            async with asyncio.timeout(patience):
                while not reader.at_end:
                    woken.clear()
                    events = (await reader.catch_up() if reader.is_behind else []) + reader.take()
                    got += events
                    if events:
                        await asyncio.sleep(pace)
                    elif not reader.at_end:
                        await woken.wait()
        told = self.witness.told[generation].events
        if got != (told if reader.at_end else told[: len(got)]):
            self.witness.blame(f"{generation.request_id}: a reader got {got}, told was {told}")
        reader.close()

    async def sweep(self) -> None:
        """Another node takes all these for dead and ends their rows."""
        self.witness.swept_held |= {held.reservation.request_id for held in self.shared._counters.held.values()}
        ended = await self.shared.recover("sweeper", self.clock(), _salvage)
        self.witness.swept |= {row.request_id for row in ended}
        self.witness.committed(self.shared._logs)
        self.witness.say(f"another node ended {len(ended)} rows")


def _salvage(row: LogRow, kept: Sequence[bytes]) -> GenerationResult:
    return salvage(row, without_gaps(StoredEvents.decode(payload) for payload in kept))


# ---------------------------------------------------------------- the store


class NodeStore:
    """One node's way to the store that all share: a single writer that commits batches in order, late, or not at all.

    Implements `ports.Journal`. A batch that fails has changed nothing.
    """

    def __init__(self, shared: MemoryStore, node: str, witness: Witness, random: Random) -> None:
        self.node = node
        self.is_down = False
        self._shared = shared
        self._witness = witness
        self._random = random
        self._slowness = random.choice((0.0, 0.001, 0.01, 1.0))
        """Longest time that a transaction takes, in seconds."""
        self._failing = random.choice((0.0, 0.0, 0.05, 0.2))
        """How often one fails."""
        self.writing: Counter[str] = Counter()
        """How many writes are under way, by request."""
        self._waiting: list[tuple[str, str, Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None

    def never_fail(self) -> None:
        """Be slow at most."""
        self._failing = 0.0

    async def accept(self, row: LogRow) -> LogRow | None:
        standing: LogRow | None = await self._write("accept", row.request_id, lambda: self._shared.accept(row))
        return standing

    def update(self, row: LogRow) -> asyncio.Future[Any]:
        return self._write("update", row.request_id, lambda: self._shared.update(row))

    async def finish(self, row: LogRow, metrics: Sequence[MetricsRow], settlements: Sequence[Settlement]) -> LogRow:
        stands: LogRow = await self._write("finish", row.request_id, lambda: self._shared.finish(row, metrics, settlements))
        return stands

    async def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], now: int) -> Refused | None:
        refused: Refused | None = await self._write(
            "reserve", reservation.request_id, lambda: self._shared.reserve(reservation, limits, now)
        )
        return refused

    async def settle(self, settlement: Settlement, now: int) -> None:
        await self._write("settle", settlement.reservation.request_id, lambda: self._shared.settle(settlement, now))

    def keep_events(self, request_id: str, first_index: int, chunk_count: int, payload: bytes, now: int) -> asyncio.Future[Any]:
        return self._write("keep", request_id, lambda: self._shared.keep_events(request_id, first_index, chunk_count, payload, now))

    async def kept_events(self, request_id: str) -> list[bytes]:
        return await self._read(lambda: self._shared.kept_events(request_id))

    async def get(self, request_id: str) -> LogRow | None:
        return await self._read(lambda: self._shared.get(request_id))

    async def _read(self, operation: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(self._slowness * self._random.random())
        self._fail()
        return await operation()

    def _write(self, kind: str, request_id: str, operation: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        """Carried out in order, also if nobody waits for it any more."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((kind, request_id, operation, answer))
        self.writing[request_id] += 1
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name=f"writer of {self.node}")
        return answer

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.sleep(self._slowness * self._random.random())
            for _, request_id, _, _ in batch:
                self.writing[request_id] -= 1
            try:
                self._fail()
            except StoreUnavailable as error:
                for kind, request_id, _, answer in batch:
                    self._witness.lost_writes.add((kind, request_id))
                    self._witness.say(f"{self.node} {request_id[-4:]} could not write: {kind}")
                    if not answer.done():
                        answer.set_exception(StoreUnavailable(str(error)))
                continue
            for kind, request_id, operation, answer in batch:
                result = await operation()
                self._witness.say(f"{self.node} {request_id[-4:]} wrote: {kind}")
                if not answer.done():
                    answer.set_result(result)
            self._witness.committed(self._shared._logs)

    def _fail(self) -> None:
        if self.is_down or self._random.random() < self._failing:
            raise StoreUnavailable("the store is out of reach")
