"""The providers of a simulation: they answer, refuse, cut, stall, break and tell secrets, as the dice fall.

Every call is looked at where it goes out: whatever the engine should have made sure of before must hold by then.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from engine.canary import key_of
from engine.places import WitnessedQueues
from engine.witness import Witness, WitnessedCall
from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety, Violation
from headrace_server.domain.events import TextDelta
from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.ports import WallClock
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.registry import dialect_for
from headrace_server.providers.scripted import Script, Step
from headrace_server.providers.upstream import _without
from headrace_server.store.memory import MemoryStore

INSTANTS = (0.0, 0.0, 0.001, 0.001, 0.002, 0.01, 0.05, 0.2, 1.0, 1.0, 2.0, 5.0, 30.0)
"""Seconds. Few values, so that things that have nothing to do with one another often happen at the same instant."""


class WildUpstream:
    """Implements `ports.Upstream` for one node. `trouble`: how often a call goes wrong."""

    def __init__(
        self,
        shared: MemoryStore,
        witness: Witness,
        random: Random,
        queues: WitnessedQueues,
        *,
        node: str,
        clock: WallClock,
        trouble: float,
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._witness = witness
        self._random = random
        self._queues = queues
        self._node = node
        self._trouble = trouble
        self.is_down = False
        """Whether every call is refused, as by a provider that has broken down."""

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        return ()

    async def call(
        self,
        request: GenerateRequest,
        provider: Provider,
        model: str,
        *,
        traceparent: str,
        connect_timeout: float,
        begins: Callable[[], None] | None = None,
    ) -> WitnessedCall:
        number = len(self._witness.calls) + 1
        script = self._script(number, provider, whole=not request.stream)
        call = WitnessedCall(request, provider, model, traceparent, connect_timeout, script, whole=script.whole, left=script.left)
        call.begin(self._witness, self._node, self._random.choice((0.0, 0.0, 0.001, 0.05)))
        self._witness.say(f"{self._node} calls {provider.provider} for {request.request_id[-4:]}: call {number}")
        self._look_for_the_intent(call)
        self._look_for_leave(call)
        self._witness.calls.append(call)
        self._look_for_others(call)
        if begins is not None:
            begins()
        try:
            await call.hold(asyncio.sleep(script.delay))
            if script.refused is not None:
                call.fault = script.refused
                raise ProviderFault(script.refused)
            if self._random.random() < 0.05 * self._trouble:
                self._witness.bugs.add(request.request_id)
                raise RuntimeError(f"a bug that tells its headers: Authorization: Bearer {key_of(provider)}")
        except BaseException:
            call.over = True
            raise
        call.opened = True
        return call

    # ------------------------------------------------------------ what must hold when a call goes out

    def _look_for_the_intent(self, call: WitnessedCall) -> None:
        request_id = call.request.request_id
        number = 1 + sum(other.request.request_id == request_id for other in self._witness.calls)
        row = self._shared._logs.get(request_id)
        is_there = row is not None and len(row.attempts) >= number
        stands_open = is_there and row.state not in TERMINAL and row.attempts[-1].state is State.REQUESTING
        # Another node may end the row after the intent was committed: in the instant before the call nobody can know of it.
        ended_just_now = is_there and request_id in self._witness.swept and row.end_time == self._clock()
        if not stands_open and not ended_just_now:
            stands = "there is no row" if row is None else f"the row is {row.state} with {len(row.attempts)} attempts"
            self._witness.blame(f"{request_id}: its call {number} went out without an intent on record: {stands}")
        call.attempt = 0 if row is None else len(row.attempts)

    def _look_for_leave(self, call: WitnessedCall) -> None:
        """The breaker let this very call through, and where it is a retry, the budget or a delay that was named paid for it."""
        task, name, who = asyncio.current_task(), call.provider.provider, f"{self._node} {call.request.request_id}"
        call.leave = self._witness.leaves.pop(task, None)
        if call.leave is None or call.leave.provider is not call.provider:
            self._witness.blame(f"{who}: {name} was called without leave of its circuit")
        before = [other for other in self._witness.calls if other.generation is call.generation and other.provider is call.provider]
        if before and not before[-1].is_told_when:
            self._witness.retries_taken[task, name] -= 1
            if self._witness.retries_taken[task, name] < 0:
                self._witness.blame(f"{who}: {name} was called again, and nothing was taken from its retry budget")

    def _look_for_others(self, call: WitnessedCall) -> None:
        """No second probe, and no more at once than may be."""
        name, who = call.provider.provider, f"{self._node} {call.request.request_id}"
        others = [c for c in self._witness.calls if c.node == self._node and c.provider.provider == name and c.is_under_way]
        probes = {c.leave for c in others if c.leave is not None and c.leave.probe}
        if len(probes - self._witness.former_probes) > 1:
            self._witness.blame(f"{who}: a second probe of {name} is under way")
        if not self._queues.has_place(call.provider, asyncio.current_task()):
            self._witness.blame(f"{who}: {name} was called without a place there")
        bounded = sum(c.provider.config.max_concurrent_requests is not None for c in others)
        if bounded > (most := self._witness.most_places[name]):
            self._witness.blame(f"{who}: {bounded} calls of {name} at once, at most {most} places were ever set")

    # ------------------------------------------------------------ what a call does

    def _script(self, number: int, provider: Provider, *, whole: bool) -> Script:
        """What call `number` does. Each piece of text names the call that it is from."""
        random = self._random
        delay, left = random.choice(INSTANTS), self._some_left()
        goes_wrong = random.random() < self._trouble
        if self.is_down:
            return Script(refused=_cut(random) if random.random() < 0.5 else self._answer(provider, 503, None, left), delay=delay)
        if goes_wrong and random.random() < 0.5:
            return Script(refused=self._some_fault(provider, left), delay=delay)
        steps: list[Step] = []
        for i in range(random.randint(0, 6)):
            pause: tuple[Step, ...] = random.choice(((), (random.choice(INSTANTS),), ([],)))
            steps += [*pause, [TextDelta(f"<{number}.{i}>")]]
        if goes_wrong:
            stall = 100_000.0
            fault = self._some_fault(provider, {})
            steps.insert(random.randint(0, len(steps)), random.choice((fault, fault, stall)))
        usage = Usage(input_tokens=3, output_tokens=number, total_tokens=3 + number, source=UsageSource.PROVIDER)
        return Script(steps=steps, delay=delay, whole=whole, usage=random.choice((usage, usage, None)), left=left)

    def _some_left(self) -> Mapping[LimitType, int]:
        """What the headers of an answer say is left; often nothing."""
        if self._random.random() < 0.5:
            return {}
        return {kind: self._random.choice((0, 2, 50, 50, 100_000, 100_000)) for kind in LimitType if self._random.random() < 0.5}

    def _some_fault(self, provider: Provider, left: Mapping[LimitType, int]) -> Fault:
        """What a provider may fail with."""
        random = self._random
        if random.random() < 0.3:
            return _cut(random)
        status, code = random.choice(((500, None), (503, None), (429, "rate_limit_exceeded"), (401, "invalid_api_key"), (400, None)))
        return self._answer(provider, status, code, left)

    def _answer(self, provider: Provider, status: int, code: str | None, left: Mapping[LimitType, int]) -> Fault:
        """An answer with an error status that repeats the key, read as the service reads it."""
        key = key_of(provider)
        after = self._random.choice((None, None, "0.001", "1", "20", "120"))
        headers = {"x-request-id": f"req-{key}"} | ({"retry-after": after} if after and status == 429 else {})
        error = {"message": f"{status}: the key {key} will not do", "type": f"error of {key}", "code": code}
        failure = HttpFailure(status, headers, json.dumps({"error": error}).encode())
        return replace(_without(key, dialect_for(provider).classify(failure)), left=left)


def _cut(random: Random) -> Fault:
    """A connection that breaks, or never came about."""
    cut = Fault(code=ErrorCode.NETWORK_ERROR, message="cut", retryable=True)
    return random.choice((cut, replace(cut, message="refused", replay_safety=ReplaySafety.NOT_SENT)))
