"""The circuit breaker and the retry budget once more, written from their rules, and a Health that is held against them at every turn."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from engine.witness import Witness
from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.ports import WallClock
from headrace_server.domain.provider import CircuitState, Provider, ProviderSettings
from headrace_server.health import Health, Pass, loop_ticks

_PROVIDERS_OWN = (ErrorCode.SERVER_ERROR, ErrorCode.NETWORK_ERROR, ErrorCode.TIMEOUT, ErrorCode.UNKNOWN_ERROR)


@dataclass(slots=True)
class Breaker:
    """What one process has to make of one provider. Times in milliseconds."""

    failures: int = 0
    """In a row."""
    open_until: int | None = None
    openings: int = 0
    probe: Pass | None = None
    first_calls: list[int] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)
    verdicts: list[tuple[int, bool]] = field(default_factory=list)
    """When a call ended by itself, and whether it failed."""

    def state(self, now: int) -> CircuitState:
        if self.open_until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.open_until else CircuitState.HALF_OPEN

    def lets_through(self, now: int) -> bool:
        state = self.state(now)
        return state is CircuitState.CLOSED or (state is CircuitState.HALF_OPEN and self.probe is None)

    def allows_a_retry(self, now: int) -> bool:
        first_calls, retries = (sum(_is_recent(time, now) for time in times) for times in (self.first_calls, self.retries))
        return retries < max(10, first_calls // 5)

    def ended(self, call: Pass, *, failed: bool, settings: ProviderSettings, now: int) -> None:
        self.verdicts.append((now, failed))
        was_probe = self.probe is call
        if was_probe:
            self.probe = None
        elif self.open_until is not None:
            return  # it began before the circuit opened, and is no news
        if not failed:
            self.failures, self.open_until, self.openings = 0, None, 0
            return
        self.failures += 1
        lately = [bad for time, bad in self.verdicts if _is_recent(time, now)]
        mostly = len(lately) >= settings.circuit_least_calls and sum(lately) > len(lately) / 2
        if was_probe or mostly or self.failures >= settings.circuit_failures:
            self.open_until = now + settings.circuit_cooldown_ms * min(16, 2**self.openings)
            self.openings += 1

    def given_up(self, call: Pass) -> None:
        if self.probe is call:
            self.probe = None


def _is_recent(time: int, now: int) -> bool:
    """Within the last minute, which is counted by whole seconds."""
    return time - time % 1_000 > now - 60_000


class WitnessedHealth(Health):
    """Does as Health does, and tells the witness of every turn that a breaker would not have taken."""

    def __init__(self, witness: Witness, node: str, clock: WallClock) -> None:
        super().__init__(loop_ticks, clock)
        self._witness = witness
        self._node = node
        self._breakers: defaultdict[str, Breaker] = defaultdict(Breaker)

    def lets_through(self, provider: Provider) -> bool:
        does = super().lets_through(provider)
        if does is not self._breakers[provider.provider].lets_through(loop_ticks()):
            self._blame(provider.provider, f"the circuit says {'yes' if does else 'no'} to a call")
        return does

    def take_retry(self, provider: Provider) -> bool:
        breaker, now = self._breakers[provider.provider], loop_ticks()
        expected = breaker.allows_a_retry(now)
        taken = super().take_retry(provider)
        if taken is not expected:
            self._blame(provider.provider, f"the retry budget says {'yes' if taken else 'no'}")
        if taken:
            breaker.retries.append(now)
            self._witness.retries_taken[asyncio.current_task(), provider.provider] += 1
        else:
            self._witness.sights["out of retries"] += 1
        return taken

    def begin(self, provider: Provider, *, again: bool) -> Pass:
        breaker, now = self._breakers[provider.provider], loop_ticks()
        leave = super().begin(provider, again=again)
        if not breaker.lets_through(now):
            self._blame(provider.provider, f"a call is let through while {breaker.state(now)}")
        if breaker.state(now) is CircuitState.HALF_OPEN:
            breaker.probe = leave
            self._witness.sights["probed"] += 1
        if not again:
            breaker.first_calls.append(now)
        self._witness.leaves[asyncio.current_task()] = leave
        return leave

    def ended(self, call: Pass, fault: Fault | None, latency: int) -> None:
        self._witness.verdicts[call] = fault
        super().ended(call, fault, latency)
        if fault is None or (fault.code in _PROVIDERS_OWN and not 400 <= fault.http_status < 500):
            breaker = self._breakers[call.provider.provider]
            before = breaker.open_until
            breaker.ended(call, failed=fault is not None, settings=call.provider.config, now=loop_ticks())
            if breaker.open_until != before:
                self._witness.sights["circuit closed" if breaker.open_until is None else "circuit opened"] += 1

    def given_up(self, call: Pass) -> None:
        self._witness.verdicts.setdefault(call, None)
        super().given_up(call)
        self._breakers[call.provider.provider].given_up(call)

    def reset(self, provider: str) -> None:
        super().reset(provider)
        breaker = self._breakers.pop(provider, Breaker())
        self._witness.sights["circuit reset"] += breaker.open_until is not None
        if breaker.probe is not None:
            self._witness.former_probes.add(breaker.probe)

    def look(self) -> None:
        """Hold each circuit against its breaker, once all that happens at this instant has happened."""
        now = loop_ticks()
        for name, breaker in self._breakers.items():
            circuit = self._standings[name].circuit
            if (circuit.opened_until, circuit.probing) != (breaker.open_until, breaker.probe is not None):
                self._blame(name, f"the circuit is {circuit}, and should be {breaker.state(now)} until {breaker.open_until}")

    def _blame(self, provider: str, what: str) -> None:
        self._witness.blame(f"{self._node} {provider}: {what}")
