"""The engine: the one way from a request to its events.

    rpc ── start(request) ──▶ Engine ──▶ Run: machine ─▶ journal ─▶ provider ─▶ machine ─▶ …
     ▲                                        │ publishes
     └──────────── reads ◀── Generation ◀─────┘

`Engine` starts generations, finds them again, and drains them at shutdown. `run.Run` takes one through the state machine.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable

from headrace_server.domain import machine, refusals
from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.events import Failed
from headrace_server.domain.identity import fingerprint, new_id
from headrace_server.domain.lifecycle import TERMINAL, Event
from headrace_server.domain.plan import Plan
from headrace_server.domain.ports import EventCodec, Journal, Routes, Telemetry, Upstream, WallClock
from headrace_server.domain.record import LogRow, UnreadRequest
from headrace_server.domain.request import GenerateRequest
from headrace_server.explain import explain
from headrace_server.generation import Generation
from headrace_server.health import Health, loop_ticks
from headrace_server.ledger import Price, provider_error
from headrace_server.policies import time_allowed
from headrace_server.queues import Queues
from headrace_server.replay import tell_again
from headrace_server.run import Run
from headrace_server.world import Caller, EngineSettings, World

__all__ = ["Caller", "Engine", "EngineSettings"]


class Engine:
    """Runs generations."""

    def __init__(
        self,
        *,
        journal: Journal,
        upstream: Upstream,
        routes: Routes,
        codec: EventCodec,
        telemetry: Telemetry,
        node: str,
        clock: WallClock,
        settings: EngineSettings | None = None,
        price: Price = lambda provider, model, usage: None,
        random: Callable[[], float] = random.random,
        health: Health | None = None,
    ) -> None:
        self.draining = asyncio.Event()
        """Set once no new work is taken."""
        self.told_of_draining: set[Callable[[], None]] = set()
        """Called at that moment."""
        self.health = health or Health(loop_ticks, clock)
        """How the providers are doing."""
        self.queues = Queues(lambda provider: self.health.totals(provider).mean_duration)
        """Who waits for a place at a provider."""
        self._telemetry = telemetry
        self._world = World(
            journal=journal,
            upstream=upstream,
            routes=routes,
            codec=codec,
            clock=clock,
            node=node,
            settings=settings or EngineSettings(),
            price=price,
            random=random,
            health=self.health,
            queues=self.queues,
        )
        self._generations: dict[str, Generation] = {}
        self._at_hand: deque[tuple[Generation, int, float]] = deque()
        """Those that ended a while ago, the oldest first; with each the bytes that it takes, and until when it stays (the loop's clock)."""
        self._forgets: asyncio.TimerHandle | None = None
        """When the time of the oldest is over."""
        self._bytes_at_hand = 0
        self._running = 0

    # ------------------------------------------------------------ starting and finding

    def start(self, request: GenerateRequest, caller: Caller) -> Generation:
        """Begin a generation, or find the one of this id and content.

        Raises Refusal (ALREADY_EXISTS, SHUTTING_DOWN, TOO_MANY_IN_FLIGHT).
        """
        if (known := self.running(request.request_id)) is not None:
            if fingerprint(known.request) != fingerprint(request):
                raise refusals.already_exists(request.request_id, known.request, request)
            return known
        if self.draining.is_set():
            raise refusals.shutting_down()
        if self._running >= self._world.settings.max_concurrent:
            raise refusals.too_many_in_flight(self._world.settings.max_concurrent, "in this process")
        trace = self._telemetry.start(request, caller.traceparent)
        generation = Generation(
            request, owner=caller.owner, traceparent=trace.traceparent, memory=self._world.settings.memory_per_generation
        )
        self._generations[request.request_id] = generation
        self._running += 1
        generation.run(Run(self._world, generation, trace, caller).to_the_end(), self._ended)
        return generation

    def _ended(self, generation: Generation) -> None:
        self._running -= 1
        if _leaves_nothing(generation):
            self._forget(generation)
            return
        until = asyncio.get_running_loop().time() + self._world.settings.replay_window / 1000
        self._at_hand.append((generation, generation.weight, until))
        self._bytes_at_hand += generation.weight
        self._forget_some()

    def _forget_some(self) -> None:
        """Let those go whose time is over, and the oldest of those that take too much memory together. Again when the next one's is."""
        loop = asyncio.get_running_loop()
        while self._at_hand and (self._bytes_at_hand > self._world.settings.replay_memory or self._at_hand[0][2] <= loop.time()):
            generation, weight, _ = self._at_hand.popleft()
            self._bytes_at_hand -= weight
            self._forget(generation)
        if self._forgets is None and self._at_hand:
            self._forgets = loop.call_at(self._at_hand[0][2], self._forget_on_time)

    def _forget_on_time(self) -> None:
        self._forgets = None
        self._forget_some()

    def _forget(self, generation: Generation) -> None:
        if self._generations.get(generation.request_id) is generation:
            del self._generations[generation.request_id]

    async def find(self, request_id: str) -> Generation:
        """A generation that runs here, ended a while ago, or stands in the store. Raises Refusal (REQUEST_NOT_FOUND)."""
        if (known := self.running(request_id)) is not None:
            return known
        row = await self.record(request_id)
        while row.state not in TERMINAL:
            # Another process runs it: its end is all that can be seen from here.
            await asyncio.sleep(self._world.settings.poll_interval / 1000)
            row = await self.record(request_id)
        request = row.request_data
        generation = Generation(request if isinstance(request, GenerateRequest) else _unread(request_id), owner=row.owner)
        await tell_again(row, generation, self._world.journal, self._world.codec)
        return generation

    def running(self, request_id: str) -> Generation | None:
        """The generation of this id, if this process has it in memory."""
        known = self._generations.get(request_id)
        return None if known is None or _leaves_nothing(known) else known

    def count_running_on(self, provider: str) -> int:
        """How many generations that run here may still call a provider."""
        running = (g for g in self._generations.values() if g.task is not None and not g.task.done())
        return sum(provider in generation.providers for generation in running)

    async def record(self, request_id: str) -> LogRow:
        """The row of a request, as committed. Raises Refusal (REQUEST_NOT_FOUND)."""
        if (row := await self._world.journal.get(request_id)) is None:
            raise refusals.not_found(request_id)
        return row

    async def explain(self, request: GenerateRequest, caller: Caller) -> Plan:
        """What would become of a request, without calling anyone and without writing anything down."""
        seconds, _ = time_allowed(request, caller.time_left, self._world.settings.total_timeout)
        return await explain(request, self._world, round(seconds * 1000))

    # ------------------------------------------------------------ ending

    async def cancel(self, request_id: str) -> LogRow:
        """End a request, and wait until its end is on record. One that has ended stays as it is. Raises Refusal (REQUEST_NOT_FOUND)."""
        if (generation := self.running(request_id)) is not None:
            generation.stop(refusals.cancelled("cancelled on request"))
            await generation.wait()
        return await self.record(request_id)

    async def refuse(self, fault: Fault, *, request_id: str, unread: object, caller: Caller) -> None:
        """Put a request on record that could not be read as one: its row goes straight to failed."""
        if self.draining.is_set():
            raise refusals.shutting_down()
        trace = self._telemetry.start(None, caller.traceparent)
        now = self._world.clock()
        context, _ = machine.advance(machine.Context(request_id=request_id), Event.INITIATE_REQUEST, at=now)
        context, _ = machine.advance(context, Event.VALIDATION_FAILED, at=now, reason=fault.message)
        error = provider_error(fault, request_id=request_id)
        row = LogRow(
            id=new_id(now),
            request_id=request_id,
            state=context.state,
            request_data=UnreadRequest.model_validate({"unread": unread}),
            error=error,
            error_message=error.message,
            error_code=error.code,
            start_time=now,
            end_time=now,
            duration=0,
            transitions=context.history,
            trace_id=trace.trace_id,
            owner=caller.owner,
            node=self._world.node,
            created_at=now,
            updated_at=now,
        )
        try:
            if await self._world.journal.accept(row) is not None:
                raise refusals.already_exists(request_id, None)
        except BaseException:
            trace.drop()
            raise
        trace.end(row)

    async def drain(self, seconds: float) -> None:
        """Take no new work, let what runs go on for so long, then end the rest as interrupted. Returns when all is on record."""
        self._say_draining()
        if tasks := [g.task for g in self._generations.values() if g.task is not None and not g.task.done()]:
            await asyncio.wait(tasks, timeout=seconds)
            self.interrupt()
            await asyncio.wait(tasks)

    def _say_draining(self) -> None:
        self.draining.set()
        for tell in list(self.told_of_draining):
            tell()

    def interrupt(self) -> None:
        """End everything that still runs, now."""
        self._say_draining()
        for generation in self._generations.values():
            generation.stop(refusals.interrupted())


def _leaves_nothing(generation: Generation) -> bool:
    """Whether it ended without anything that readers could come back to: its id is free, or belongs to the row that was there before."""
    outcome = generation.outcome
    if outcome is None:
        return False
    refused = isinstance(outcome, Failed) and not outcome.error.attempts and outcome.error.code is ErrorCode.INVALID_REQUEST
    return refused or not generation.is_accepted


def _unread(request_id: str) -> GenerateRequest:
    """Stands for a request whose content is not on record."""
    return GenerateRequest.model_construct(request_id=request_id, messages=())
