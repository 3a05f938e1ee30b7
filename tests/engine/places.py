"""Who runs and who waits at a provider, seen from outside and held against the queue after every step."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from engine.witness import Witness
from headrace_server.domain.provider import Provider
from headrace_server.health import Health
from headrace_server.queues import OnWait, Queues


@dataclass(slots=True, eq=False)
class Ticket:
    """One request at one provider."""

    task: asyncio.Task[None] | None
    place: tuple[int, int]
    """Priority, then order of arrival: the lower, the sooner it is its turn."""
    turn: asyncio.Future[None] | None = None
    """What the queue tells when it is."""


@dataclass(slots=True)
class Line:
    """Everybody at one provider."""

    inside: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)
    called: list[Ticket] = field(default_factory=list)
    """Those of them whose turn it is, and who have not heard of it yet."""
    taken: int = 0
    """Places, after the last step."""


class WitnessedQueues(Queues):
    """Does as Queues does, and tells the witness of everything that is not in order."""

    def __init__(self, witness: Witness, node: str, health: Health) -> None:
        super().__init__(lambda provider: health.totals(provider).mean_duration)
        self._witness = witness
        self._node = node
        self._lines: defaultdict[str, Line] = defaultdict(Line)
        self._arrivals = itertools.count()

    def has_place(self, provider: Provider, task: asyncio.Task[None] | None) -> bool:
        """Whether whoever calls a provider has a place there, if it needs one."""
        return provider.config.max_concurrent_requests is None or any(t.task is task for t in self._lines[provider.provider].inside)

    @asynccontextmanager
    async def place(self, provider: Provider, priority: int, time_left: int, on_wait: OnWait) -> AsyncIterator[None]:
        if provider.config.max_concurrent_requests is None:
            async with super().place(provider, priority, time_left, on_wait):
                yield
            return
        line, ticket = self._lines[provider.provider], Ticket(asyncio.current_task(), (priority, next(self._arrivals)))

        async def wait(seconds: int) -> None:
            ticket.turn = max(self._queues[provider.provider].waiting, key=lambda place: place[1])[2]
            line.waiting.append(ticket)
            self._witness.sights["queued"] += 1
            await on_wait(seconds)

        try:
            async with super().place(provider, priority, time_left, wait):
                if ticket in line.waiting:
                    line.waiting.remove(ticket)
                line.inside.append(ticket)
                yield
        finally:
            for those in (line.inside, line.waiting):
                if ticket in those:
                    those.remove(ticket)

    def look(self) -> None:
        """Hold each queue against those who stand in it."""
        for name, line in self._lines.items():
            if (queue := self._queues.get(name)) is None:
                continue
            turns = {turn for _, _, turn in queue.waiting}
            # One that was stopped has left, even if it has not heard of that yet.
            there = [ticket for ticket in line.waiting if ticket.turn is not None and not ticket.turn.cancelled()]
            called = [ticket for ticket in there if ticket.turn not in turns]
            still = [ticket for ticket in there if ticket.turn in turns]
            if queue.running != len(line.inside) + len(called):
                self._blame(name, f"{queue.running} places count as taken, {len(line.inside) + len(called)} are")
            if queue.running > max(queue.limit, line.taken):
                self._blame(name, f"{queue.running} run at once, {queue.limit} may")
            if still and queue.running < queue.limit:
                self._blame(name, f"{len(still)} wait, and {queue.running} of {queue.limit} places are taken")
            if any(new.place > other.place for new in called if new not in line.called for other in still):
                self._blame(name, "somebody was let in out of turn")
            line.called, line.taken = called, queue.running

    def look_at_the_end(self) -> None:
        """Everybody has left."""
        for name, queue in self._queues.items():
            if queue.running or queue.waiting:
                self._blame(name, f"{queue.running} places are taken and {len(queue.waiting)} wait for ever")

    def _blame(self, provider: str, what: str) -> None:
        self._witness.blame(f"{self._node} {provider}: {what}")
