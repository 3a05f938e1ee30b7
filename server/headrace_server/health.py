"""The health of every provider: who may be called, as the circuit breakers and the retry budget say, and who goes first.

Kept in memory by each process, from the calls it made itself. The decisions are the domain's; here they are carried out.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace_server.domain import circuit, refusals, retry
from headrace_server.domain.circuit import Circuit
from headrace_server.domain.errors import Fault, HeadraceError
from headrace_server.domain.health import LastMinute, ProviderHealth, Totals
from headrace_server.domain.ports import WallClock
from headrace_server.domain.provider import CircuitState, Provider

log = logging.getLogger(__name__)


def loop_ticks() -> int:
    """The running loop's clock, in milliseconds."""
    return round(asyncio.get_running_loop().time() * 1000)


@dataclass(slots=True)
class _Standing:
    """What is known of one provider."""

    circuit: Circuit = circuit.CLOSED
    minute: LastMinute = field(default_factory=LastMinute)


class Health:
    """All providers by name. `ticks` is a clock in milliseconds that never goes back; `wall_clock` only says when a time will be."""

    def __init__(self, ticks: Callable[[], int], wall_clock: WallClock, *, retry_budget: float = retry.BUDGET) -> None:
        self._ticks = ticks
        self._wall_clock = wall_clock
        self._retry_budget = retry_budget
        self._standings: defaultdict[str, _Standing] = defaultdict(_Standing)

    # ------------------------------------------------------------ asking

    def lets_through(self, provider: Provider) -> bool:
        """Whether a call would be let through now."""
        return circuit.admit(self._standings[provider.provider].circuit, self._ticks()) is not None

    def check(self, provider: Provider) -> None:
        """Raise HeadraceError (CIRCUIT_OPEN) where a call would not be let through now."""
        if not self.lets_through(provider):
            raise self._is_open(provider)

    def _is_open(self, provider: Provider) -> HeadraceError:
        now = self._ticks()
        until = self._standings[provider.provider].circuit.opened_until or now
        return HeadraceError(refusals.circuit_open(provider.provider, max(0, until - now)))

    def take_retry(self, provider: Provider) -> bool:
        """Take one retry from the provider's budget; False where it is used up."""
        now, minute = self._ticks(), self._standings[provider.provider].minute
        totals = minute.totals(now)
        if not retry.is_within_budget(totals.first_calls, totals.retries, self._retry_budget):
            return False
        minute.count(now, Totals(retries=1))
        return True

    def begin(self, provider: Provider, *, again: bool) -> "Pass":
        """Let a call through; `again`: it is a retry. Raises HeadraceError (CIRCUIT_OPEN)."""
        standing, now = self._standings[provider.provider], self._ticks()
        admitted = circuit.admit(standing.circuit, now)
        if admitted is None:
            raise self._is_open(provider)
        is_probe = admitted is not standing.circuit
        standing.circuit = admitted
        if not again:
            standing.minute.count(now, Totals(first_calls=1))
        return Pass(self, provider, standing, probe=is_probe, began=now)

    # ------------------------------------------------------------ telling

    def ended(self, call: "Pass", fault: Fault | None, latency: int) -> None:
        """A call has ended by itself: a verdict on the provider, unless the fault is not of its making."""
        if fault is not None and not circuit.speaks_against_the_provider(fault):
            return self.given_up(call)
        standing, now = self._standings[call.provider.provider], self._ticks()
        before = standing.circuit
        if fault is None:
            standing.minute.count(now, Totals(calls=1, answers=1, latency=latency, duration=now - call.began))
            standing.circuit = circuit.succeeded(before, probe=self._is_probe(call))
        else:
            standing.minute.count(now, Totals(calls=1, failures=1))
            minute = standing.minute.totals(now)
            probe, settings = self._is_probe(call), call.provider.config
            standing.circuit = circuit.failed(before, probe=probe, minute=minute, settings=settings, now=now)
        self._say(call.provider.provider, before, standing.circuit, now, fault)

    def given_up(self, call: "Pass") -> None:
        """A call has ended in a way that says nothing about the provider."""
        standing = self._standings[call.provider.provider]
        standing.circuit = circuit.without_verdict(standing.circuit, probe=self._is_probe(call))

    def _is_probe(self, call: "Pass") -> bool:
        """Whether it is the probe of the circuit as it stands; one that was reset meanwhile knows of no probe, or of another."""
        return call.probe and call.standing is self._standings[call.provider.provider]

    def _say(self, provider: str, before: Circuit, after: Circuit, now: int, fault: Fault | None) -> None:
        if after.opened_until is not None and after.opened_until != before.opened_until:
            seconds = (after.opened_until - now) / 1000
            why = "" if fault is None else fault.message
            log.warning("circuit of %s opened for %g s: %s", provider, seconds, why, extra={"provider": provider})
        elif after.opened_until is None and before.opened_until is not None:
            log.warning("circuit of %s closed", provider, extra={"provider": provider})

    # ------------------------------------------------------------ for operators and routing

    def view(self, provider: Provider) -> ProviderHealth:
        """How a provider is doing."""
        now = self._ticks()
        standing, totals = self._standings[provider.provider], self.totals(provider.provider)
        state, until = circuit.state(standing.circuit, now), standing.circuit.opened_until
        return ProviderHealth(
            circuit_state=state,
            circuit_retry_time=self._wall_clock() + until - now if state is CircuitState.OPEN and until is not None else None,
            error_rate=totals.error_rate,
            latency=totals.mean_latency,
            calls=totals.calls,
        )

    def totals(self, provider: str) -> Totals:
        """The last minute of a provider."""
        return self._standings[provider].minute.totals(self._ticks())

    def rank(self, provider: str) -> tuple[float, int]:
        """The lower, the healthier: error rate, then latency, of the last minute. One without calls counts as well."""
        if provider not in self._standings:
            return 0.0, 0
        totals = self.totals(provider)
        return totals.error_rate or 0.0, totals.mean_latency or 0

    def reset(self, provider: str) -> None:
        """Close the circuit and forget the last minute. The verdict of a call under way counts as that of any other."""
        if self._standings.pop(provider, None) is not None:
            log.warning("circuit of %s reset by hand", provider, extra={"provider": provider})


class Pass:
    """Leave to make one call. It must be handed back, by `ended` or by `given_up`."""

    __slots__ = ("_health", "_is_over", "began", "probe", "provider", "standing")

    def __init__(self, health: Health, provider: Provider, standing: _Standing, *, probe: bool, began: int) -> None:
        self.provider = provider
        self.standing = standing
        self.probe = probe
        self.began = began
        self._health = health
        self._is_over = False

    def ended(self, fault: Fault | None, latency: int) -> None:
        """The call ended by itself, `latency` milliseconds after its beginning came the first chunk."""
        if not self._is_over:
            self._is_over = True
            self._health.ended(self, fault, latency)

    def given_up(self) -> None:
        """The call was stopped, or never made. Does nothing where it has ended."""
        if not self._is_over:
            self._is_over = True
            self._health.given_up(self)
