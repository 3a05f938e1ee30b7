"""The world around engines in a simulation: nodes that share a store which is slow and fails, and providers that do what they like."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from engine.invariants import after_recovery, violations
from engine.virtual import VirtualLoop
from engine.witness import Witness, WitnessedCall, WitnessedCounters, WitnessedTelemetry
from headrace_server.catalog import Catalog
from headrace_server.domain.errors import ErrorCode, Fault, HeadraceError, ProviderFault, ReplaySafety, StoreUnavailable, Violation
from headrace_server.domain.events import GenerationEvent, TextDelta
from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.limits import LimitType, Refused
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import GenerationResult
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.engine import Engine, EngineSettings
from headrace_server.generation import Generation
from headrace_server.keeper import without_gaps
from headrace_server.providers.scripted import Script, Step
from headrace_server.replay import salvage
from headrace_server.rpc.codec_event import StoredEvents
from headrace_server.store.memory import MemoryStore
from support.engine import START, PlainCipher

T = TypeVar("T")

INSTANTS = (0.0, 0.0, 0.001, 0.001, 0.002, 0.01, 0.05, 0.2, 1.0, 1.0, 2.0, 5.0, 30.0)
"""Seconds. Few values, so that things that have nothing to do with one another often happen at the same instant."""
LONGEST = 4_000.0
"""Seconds after which everything must have ended: longer than the longest deadline and all that may come before it."""


class World:
    """Nodes that share one store and one virtual clock. Everything in it follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.loop = VirtualLoop(seed)
        self.witness = Witness()
        self.skew = 0
        """Milliseconds by which the wall clock is off."""
        self.shared = MemoryStore(node="shared", clock=self.clock)
        self.shared._counters = WitnessedCounters(self.witness)
        self.stores: list[NodeStore] = []
        self.engines: list[Engine] = []

    def clock(self) -> int:
        return START + self.skew + round(self.loop.time() * 1000)

    def add_node(self, providers: Sequence[Provider], *, trouble: float) -> Engine:
        """A process with an engine of its own. `trouble`: how often a call of its providers goes wrong."""
        store = NodeStore(self.shared, f"node-{len(self.engines) + 1}", self.witness, self.random)
        engine = Engine(
            journal=store,
            upstream=WildUpstream(self.shared, self.witness, self.random, trouble),
            routes=Catalog(self.shared, PlainCipher(), from_file=providers),
            codec=StoredEvents(),
            telemetry=WitnessedTelemetry(self.witness),
            node=store.node,
            clock=self.clock,
            settings=EngineSettings(memory_per_generation=self.random.choice((400, 1024 * 1024))),
            random=self.random.random,
        )
        self.stores.append(store)
        self.engines.append(engine)
        return engine

    def run(self, play: Coroutine[Any, Any, None]) -> list[str]:
        """Play to the end, wait until all is quiet, and return what was not as it must be."""
        try:
            self.loop.run(self.shared.open())
            self.loop.run(play)
            self.loop.run(self._wait_until_quiet())
            wrong = [*self.loop.leftovers(), *violations(self.witness, self.shared)]
            self.loop.run(self.sweep())
            return [*wrong, *after_recovery(self.shared)]
        except Exception as error:  # noqa: BLE001 - the run is over, and its seed tells how it came about
            return [f"it broke off: {error!r}", *self.witness.wrong]
        finally:
            self.loop.close()

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
        pace = self.random.choice((0.0, 0.0, 0.01, 1.0))
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
            self.witness.wrong.append(f"{generation.request_id}: a reader got {got}, told was {told}")
        reader.close()

    async def sweep(self) -> None:
        """Another node takes all these for dead and ends their rows."""
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
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name=f"writer of {self.node}")
        return answer

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.sleep(self._slowness * self._random.random())
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


# ---------------------------------------------------------------- the providers


class WildUpstream:
    """Providers that answer, refuse, cut, stall or break, as the dice fall. Implements `ports.Upstream`."""

    def __init__(self, shared: MemoryStore, witness: Witness, random: Random, trouble: float) -> None:
        self._shared = shared
        self._witness = witness
        self._random = random
        self._trouble = trouble

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        return ()

    async def call(
        self, request: GenerateRequest, provider: Provider, model: str, *, traceparent: str, connect_timeout: float
    ) -> WitnessedCall:
        number = len(self._witness.calls) + 1
        script = self._script(number, whole=not request.stream)
        call = WitnessedCall(request, provider, model, traceparent, connect_timeout, script, whole=script.whole)
        call.pause = self._random.choice((0.0, 0.0, 0.001, 0.05))
        self._witness.calls.append(call)
        self._witness.say(f"call {number} of {provider.provider} for {request.request_id[-4:]}")
        self._look_for_the_intent(call)
        await asyncio.sleep(script.delay)
        if script.refused is not None:
            raise ProviderFault(script.refused)
        if self._random.random() < 0.05 * self._trouble:
            self._witness.bugs.add(request.request_id)
            raise RuntimeError("a bug")
        call.opened = True
        return call

    def _look_for_the_intent(self, call: WitnessedCall) -> None:
        request_id = call.request.request_id
        number = sum(other.request.request_id == request_id for other in self._witness.calls)
        row = self._shared._logs.get(request_id)
        if row is None or row.state in TERMINAL or len(row.attempts) < number or row.attempts[-1].state is not State.REQUESTING:
            stands = "there is no row" if row is None else f"the row is {row.state} with {len(row.attempts)} attempts"
            self._witness.wrong.append(f"{request_id}: its call {number} went out without an intent on record: {stands}")

    def _script(self, number: int, *, whole: bool) -> Script:
        """What call `number` does. Each piece of text names the call that it is from."""
        random = self._random
        delay = random.choice(INSTANTS)
        goes_wrong = random.random() < self._trouble
        if goes_wrong and random.random() < 0.5:
            return Script(refused=_some_fault(random), delay=delay)
        steps: list[Step] = []
        for i in range(random.randint(0, 6)):
            pause: tuple[Step, ...] = random.choice(((), (random.choice(INSTANTS),), ([],)))
            steps += [*pause, [TextDelta(f"<{number}.{i}>")]]
        if goes_wrong:
            stall = 100_000.0
            steps.insert(random.randint(0, len(steps)), random.choice((_some_fault(random), _some_fault(random), stall)))
        usage = Usage(input_tokens=3, output_tokens=number, total_tokens=3 + number, source=UsageSource.PROVIDER)
        return Script(steps=steps, delay=delay, whole=whole, usage=random.choice((usage, usage, None)))


def _some_fault(random: Random) -> Fault:
    """What a provider may fail with."""
    named = random.choice((None, None, 1, 1_000, 20_000, 120_000))
    return random.choice(
        (
            Fault(code=ErrorCode.SERVER_ERROR, message="500", retryable=True, http_status=500),
            Fault(code=ErrorCode.RATE_LIMIT_EXCEEDED, message="429", retryable=True, http_status=429, retry_after=named),
            Fault(code=ErrorCode.NETWORK_ERROR, message="refused", retryable=True, replay_safety=ReplaySafety.NOT_SENT),
            Fault(code=ErrorCode.NETWORK_ERROR, message="cut", retryable=True),
            Fault(code=ErrorCode.AUTHENTICATION_ERROR, message="401", http_status=401),
            Fault(code=ErrorCode.INVALID_REQUEST, message="400", fallback=False, http_status=400),
        )
    )
