"""Races on a virtual clock: callers, operators, stores and providers that meet at the same instants, in an order that a seed chooses.

    make simulate [SEEDS=10000]    many runs; the last line is `seeds=N violations=N`
    make simulate SEED=S           one run, with its story

The exit code is 1 where something was not as it must be.
"""

import argparse
import asyncio
import contextlib
import sys
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from engine.canary import canary
from engine.invariants import SLACK
from engine.upstream import INSTANTS
from engine.witness import Told
from engine.world import LONGEST, World
from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, HeadraceError, Refusal
from headrace_server.domain.events import Discontinuity, Failed
from headrace_server.domain.lifecycle import TERMINAL, Event, State, Transition
from headrace_server.domain.provider import Provider, ProviderSettings
from headrace_server.domain.request import GenerateRequest
from headrace_server.engine import Caller
from headrace_server.generation import ROOM, Generation, Room
from support.engine import provider, request

UNLIMITED = {"rate_limit_rpm": None, "rate_limit_tpm": None, "rate_limit_rpd": None, "timeout_ms": 30_000}

NEVER_OPENS = {"config": ProviderSettings(circuit_failures=1_000_000, circuit_least_calls=1_000_000)}


class Race(World):
    """A few requests, those who call them, and those who disturb."""

    def verdict(self) -> list[str]:
        """What was not as it must be."""
        return self.run(self._storm() if self.random.random() < 0.25 else self._anything())

    async def _anything(self) -> None:
        random = self.random
        providers = [self._some_provider(name) for name in ("first", "second", "third")[: random.randint(1, 3)]]
        for _ in range(random.choice((1, 2))):
            self.add_node(providers, trouble=random.choice((0.0, 0.3, 0.8)))
        wanted = [self._some_request() for _ in range(random.choice((1, 2, 3, 4, 4, random.randint(5, 20))))]
        again = [random.choice(wanted) for _ in range(random.choice((0, 1, 1, 3)))]
        roles = [self._call(each) for each in [*wanted, *again]]
        disturbances = (
            *(self._drain, self._interrupt, self._lose_the_lease, self._go_down, self._set_the_clock, self._refuse),
            *(self._break_down, self._break_down, self._change_a_provider, self._reset_a_circuit, self._reset_a_circuit),
        )
        roles += [random.choice(disturbances)() for _ in range(random.choice((0, 0, 1, 2, 4)))]
        await self._meet(roles)

    async def _storm(self) -> None:
        """Many requests, and nothing but providers that break down and come back: what circuits, budgets and queues are for."""
        random = self.random
        providers = [
            self._some_provider(name).model_copy(update=UNLIMITED | {"rate_limit_rpm": random.choice((None, 1_000))})
            for name in ("first", "second", "third")[: random.randint(1, 3)]
        ]
        if random.random() < 0.4:
            providers[0] = providers[0].model_copy(update=NEVER_OPENS)
        self.add_node(providers, trouble=random.choice((0.0, 0.3)))
        self.stores[0].never_fail()
        retry = {"initial_delay": random.choice((1, 1, 1_000)), "max_attempts": 20}
        wanted = [
            self._some_request(**({"retry": retry, "timeouts": {}, "max_tokens": None} if random.random() < 0.8 else {}))
            for _ in range(random.randint(8, 25))
        ]
        roles = [self._call(each) for each in wanted]
        roles += [self._break_down() for _ in range(random.randint(1, 3))]
        roles += [random.choice((self._reset_a_circuit, self._reset_a_probe))() for _ in range(random.choice((0, 1, 3)))]
        await self._meet(roles)

    async def _meet(self, roles: Iterable[Coroutine[Any, Any, None]]) -> None:
        """All of them begin, each at an instant of its own."""
        async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as group:
            for role in roles:
                group.create_task(self._begin(role))

    async def _begin(self, role: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(self._instant())
        await role

    def _instant(self) -> float:
        return self.random.choice(INSTANTS)

    def _some_provider(self, name: str) -> Provider:
        random = self.random
        return provider(
            name,
            max_retries=random.randint(1, 3),
            timeout_ms=random.choice((10, 1_000, 30_000, 30_000)),
            rate_limit_rpm=random.choice((None, None, 1, 3)),
            rate_limit_tpm=random.choice((None, None, 3_000)),
            rate_limit_rpd=random.choice((None, 2, 100)),
            api_key=canary(name),
            config={
                "circuit_failures": random.choice((1, 2, 5, 1_000)),
                "circuit_least_calls": random.choice((2, 10, 1_000)),
                "circuit_cooldown_ms": random.choice((1, 1_000, 1_000, 5_000, 60_000)),
                "max_concurrent_requests": random.choice((None, None, 1, 2)),
                "queue_length": random.choice((0, 1, 1_000, 1_000)),
            },
        )

    def _some_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _some_request(self, **fields: Any) -> GenerateRequest:
        random = self.random
        some = {
            "request_id": self._some_id(),
            "stream": random.random() < 0.8,
            "provider": random.choice((None, "first")),
            "priority": random.choice((None, None, 1, 500)),
            "max_tokens": random.choice((None, None, 10, 2_000, 5_000)),
            "on_disconnect": random.choice((None, "cancel", "drain", "keep", "keep")),
            "retry": {"initial_delay": random.choice((1, 1, 1_000)), "max_attempts": random.choice((None, None, 1, 4, 20))},
            "fallback": {"mid_stream": random.choice((None, "restart")), "enabled": random.choice((None, None, False))},
            "timeouts": {
                "total": random.choice((None, None, None, 1, 1_000, 5_000, 100_000)),
                "idle": random.choice((None, 1_000)),
                "progress": random.choice((None, None, 2_000)),
            },
        }
        return request(**some | fields)

    # ------------------------------------------------------------ those who call

    async def _call(self, wanted: GenerateRequest) -> None:
        """Start a request, at any node; then read it, have it ended, or look in later."""
        random = self.random
        if random.random() < 0.1:
            wanted = wanted.model_copy(update={"seed": 7})
        i = random.randrange(len(self.engines))
        try:
            generation = self.engines[i].start(wanted, Caller(time_left=random.choice((None, None, None, None, 0.0, 1.0, 30.0))))
        except Refusal as refusal:
            self.witness.errors.append(str(refusal))
            return
        if generation not in self.witness.told:
            generation.room = Room(random.choice((ROOM, 300, 300, 900)))
        self.witness.watch(generation, self.stores[i].node)
        await random.choice((self.read, self.read, self.read, self.read, self._leave, self._cancel, self._stop, self._look_in))(generation)

    async def _leave(self, generation: Generation) -> None:
        await self.read(generation, self._instant())

    async def _cancel(self, generation: Generation) -> None:
        """By the RPC, at any node, at an instant or upon something that happens."""
        await self._await_something(generation)
        try:
            row = await self.random.choice(self.engines).cancel(generation.request_id)
        except HeadraceError as error:
            self.witness.errors.append(str(error))
            return
        if row.state in TERMINAL and self.shared._logs[row.request_id] != row:
            self.witness.blame(f"{row.request_id}: cancelling returned {row.state} {row.error_code}, which does not stand")

    async def _stop(self, generation: Generation) -> None:
        """By a command of the stream."""
        await self._await_something(generation)
        generation.stop(refusals.cancelled("cancelled on request"))

    async def _await_something(self, generation: Generation) -> None:
        state, count = self.random.choice((*State, None)), self.random.randint(0, 4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._instant()):
                await generation.until(
                    lambda: (
                        generation.outcome is not None or (generation.chunk_count >= count if state is None else generation.state is state)
                    )
                )

    async def _look_in(self, generation: Generation) -> None:
        """Attach later and from anywhere; where it has left memory, it is told again from the store."""
        await asyncio.sleep(5 * self._instant())
        with contextlib.suppress(TimeoutError, HeadraceError):
            async with asyncio.timeout(LONGEST / 4):
                found = await self.random.choice(self.engines).find(generation.request_id)
                if found.task is None:
                    again = self.witness.told[found] = Told(found, "store", self.loop.time(), found.since(0), self.loop.time())
                    self.witness.say(f"{found.request_id[-4:]} is told again: {again.events}"[:400])
                else:
                    found.attach(0, lambda: None).close()

    # ------------------------------------------------------------ those who disturb

    async def _drain(self) -> None:
        seconds, began = self._instant(), self.loop.time()
        self.witness.say(f"a node drains for {seconds} s")
        await self.random.choice(self.engines).drain(seconds)
        if self.loop.time() > began + seconds + SLACK:
            self.witness.blame(f"draining for {seconds} s took {self.loop.time() - began:.3f} s")

    async def _interrupt(self) -> None:
        self.witness.say("a node is interrupted")
        self.random.choice(self.engines).interrupt()

    async def _lose_the_lease(self) -> None:
        await self.sweep()

    async def _go_down(self) -> None:
        store = self.random.choice(self.stores)
        self.witness.say(f"the store of {store.node} is down")
        store.is_down = True
        await asyncio.sleep(self._instant())
        store.is_down = False
        self.witness.say(f"the store of {store.node} is up")

    async def _break_down(self) -> None:
        """The providers, as one node sees them."""
        upstream = self.random.choice(self.upstreams)
        self.witness.say("the providers break down")
        upstream.is_down = True
        await asyncio.sleep(2 * self._instant())
        upstream.is_down = False
        self.witness.say("the providers are back")

    async def _set_the_clock(self) -> None:
        self.set_clock(self.random.choice((-3_600_000, -1_000, 1_000, 3_600_000)))

    async def _change_a_provider(self) -> None:
        """By an operator; the nodes come to know of it one after the other."""
        names = [each.provider for each in self.catalogs[0].all()]
        changed = self._some_provider(self.random.choice(names)).model_copy(update={"enabled": self.random.random() < 0.8})
        self.witness.say(f"{changed.provider} is changed: enabled={changed.enabled} {changed.config} {changed.limits}")
        for i in range(len(self.engines)):
            self.set_provider(i, changed)
            await asyncio.sleep(self._instant())

    async def _reset_a_circuit(self) -> None:
        """By an operator, at one node."""
        node = self.random.choice(self.engines)
        name = self.random.choice([each.provider for each in self.catalogs[0].all()])
        self.witness.say(f"the circuit of {name} is reset")
        node.health.reset(name)

    async def _reset_a_probe(self) -> None:
        """By an operator who does not wait for what comes of a probe."""
        for _ in range(100):
            probe = next((call for call in self.witness.calls if call.is_under_way and call.leave is not None and call.leave.probe), None)
            if probe is not None:
                self.witness.say(f"the circuit of {probe.provider.provider} is reset in mid-probe")
                return self.engines[0].health.reset(probe.provider.provider)
            await asyncio.sleep(self._instant())

    async def _refuse(self) -> None:
        fault = Refusal(ErrorCode.INVALID_REQUEST, "the request is not valid").fault
        with contextlib.suppress(HeadraceError):
            await self.random.choice(self.engines).refuse(fault, request_id=self._some_id(), unread={}, caller=Caller())

    # ------------------------------------------------------------ what there was to see

    def sights(self) -> Counter[str]:
        """Which outcomes and turns occurred, and in how many generations."""
        seen = Counter(self.witness.sights)
        for told in self.witness.told.values():
            end = told.generation.outcome
            steps = {event.event for event in told.events if isinstance(event, Transition)}
            seen["completed" if not isinstance(end, Failed) else f"{end.error.code} {end.error.subreason}".strip()] += 1
            seen["retried"] += Event.RETRY_REQUEST in steps
            seen["waited for a limit"] += Event.RATE_LIMIT_HIT in steps
            seen["fell back"] += Event.FALLBACK_TO_PROVIDER in steps
            seen["restarted"] += any(isinstance(event, Discontinuity) for event in told.events)
            seen["told again"] += told.generation.is_replay or told.node == "store"
            seen["ended by another node"] += told.request_id in self.witness.swept
        return seen


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=10_000, help="how many runs (10000)")
    arguments.add_argument("--first", type=int, default=0, help="the first seed (0)")
    arguments.add_argument("--seed", type=int, help="only this one, with its story")
    options = arguments.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else (options.seed,)
    seen: Counter[str] = Counter()
    failed = 0
    for seed in seeds:
        race = Race(seed)
        wrong = race.verdict()
        seen += race.sights()
        failed += bool(wrong)
        if options.seed is not None:
            print(*race.witness.story, sep="\n")
        for line in wrong:
            print(f"seed {seed}: {line[:1000]}", flush=True)
        if wrong:
            print(f"replay it: make simulate SEED={seed}", flush=True)
    print(*(f"{number:8}  {what}" for what, number in sorted(seen.items())), sep="\n")
    print(f"seeds={len(seeds)} violations={failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
