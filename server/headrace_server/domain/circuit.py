"""The circuit breaker of a provider: pure decisions. What time it is and how the last minute went come in as arguments.

CLOSED lets every call through. It opens after so many failures in a row, or when more than half of the last minute's calls failed.
OPEN lets none through. After its wait it is HALF_OPEN without anybody's doing: one call, the probe, goes through. Its success closes
the circuit, its failure opens it again for twice as long.
"""

from dataclasses import dataclass, replace

from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.health import Totals
from headrace_server.domain.provider import CircuitState, ProviderSettings

FAILING_SHARE = 0.5
"""A circuit opens when more than this share of the last minute's calls failed, if there were enough."""
LONGEST_WAIT = 16
"""Times the cool-down: the longest that repeated failures of the probe make of it."""

_PROVIDERS_OWN = frozenset({ErrorCode.SERVER_ERROR, ErrorCode.NETWORK_ERROR, ErrorCode.TIMEOUT, ErrorCode.UNKNOWN_ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """Where a breaker stands. Times in milliseconds, on a clock that never goes back."""

    failures: int = 0
    """In a row."""
    opened_until: int | None = None
    """When a probe may go; None: it is closed."""
    openings: int = 0
    """How often it has opened since it was last closed."""
    probing: bool = False
    """Whether the probe is under way."""


CLOSED = Circuit()


def speaks_against_the_provider(fault: Fault) -> bool:
    """Whether a failure counts: errors of the caller's making do not, nor does being told to slow down."""
    return fault.code in _PROVIDERS_OWN and not 400 <= fault.http_status < 500


def state(circuit: Circuit, now: int) -> CircuitState:
    """What the breaker lets through at this moment."""
    if circuit.opened_until is None:
        return CircuitState.CLOSED
    return CircuitState.OPEN if now < circuit.opened_until else CircuitState.HALF_OPEN


def admit(circuit: Circuit, now: int) -> Circuit | None:
    """The circuit with one more call under way, or None where it may not go. A call let through while half open is the probe."""
    match state(circuit, now):
        case CircuitState.CLOSED:
            return circuit
        case CircuitState.HALF_OPEN if not circuit.probing:
            return replace(circuit, probing=True)
    return None


def succeeded(circuit: Circuit, *, probe: bool) -> Circuit:
    """After a call that ended well. One that began before the circuit opened does not close it."""
    if probe or circuit.opened_until is None:
        return CLOSED
    return circuit


def failed(circuit: Circuit, *, probe: bool, minute: Totals, settings: ProviderSettings, now: int) -> Circuit:
    """After a call that failed by the provider's doing; `minute` is the last one, this call included."""
    if circuit.opened_until is not None and not probe:
        return circuit
    failures = circuit.failures + 1
    too_many = minute.calls >= settings.circuit_least_calls and minute.failures > FAILING_SHARE * minute.calls
    if not (probe or too_many or failures >= settings.circuit_failures):
        return replace(circuit, failures=failures)
    wait = settings.circuit_cooldown_ms * min(2**circuit.openings, LONGEST_WAIT)
    return Circuit(failures=failures, opened_until=now + wait, openings=circuit.openings + 1)


def without_verdict(circuit: Circuit, *, probe: bool) -> Circuit:
    """After a call that says nothing about the provider: it was cancelled, or refused for the caller's fault. Another probe may go."""
    return replace(circuit, probing=False) if probe else circuit
