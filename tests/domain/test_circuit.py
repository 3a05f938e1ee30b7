from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain import circuit
from headrace_server.domain.circuit import CLOSED, LONGEST_WAIT, Circuit
from headrace_server.domain.errors import ErrorCode, Fault
from headrace_server.domain.health import Totals
from headrace_server.domain.provider import CircuitState, ProviderSettings

SETTINGS = ProviderSettings(circuit_failures=3, circuit_cooldown_ms=1_000)
QUIET = Totals()
NOW = 50_000


def fail(standing: Circuit, *, probe: bool = False, minute: Totals = QUIET, now: int = NOW) -> Circuit:
    return circuit.failed(standing, probe=probe, minute=minute, settings=SETTINGS, now=now)


def opened() -> Circuit:
    return fail(fail(fail(CLOSED)))


def admitted(standing: Circuit, now: int) -> Circuit:
    after = circuit.admit(standing, now)
    assert after is not None
    return after


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    twice = fail(fail(CLOSED))
    assert circuit.state(twice, NOW) is CircuitState.CLOSED
    thrice = fail(twice)
    assert circuit.state(thrice, NOW) is CircuitState.OPEN
    assert thrice.opened_until == NOW + 1_000


def test_a_success_between_failures_begins_the_count_again() -> None:
    standing = fail(fail(circuit.succeeded(fail(fail(CLOSED)), probe=False)))
    assert circuit.state(standing, NOW) is CircuitState.CLOSED


def test_it_opens_when_more_than_half_of_the_last_minute_failed_of_at_least_ten() -> None:
    few = fail(CLOSED, minute=Totals(calls=9, failures=9))
    half = fail(CLOSED, minute=Totals(calls=10, failures=5))
    more = fail(CLOSED, minute=Totals(calls=10, failures=6))
    assert [circuit.state(standing, NOW) for standing in (few, half, more)] == ["closed", "closed", "open"]


def test_an_open_circuit_lets_nothing_through_until_its_wait_is_over() -> None:
    standing = opened()
    assert circuit.admit(standing, NOW) is None
    assert circuit.admit(standing, NOW + 999) is None
    assert circuit.state(standing, NOW + 1_000) is CircuitState.HALF_OPEN


def test_one_probe_goes_through_a_half_open_circuit() -> None:
    probing = admitted(opened(), NOW + 1_000)
    assert circuit.admit(probing, NOW + 1_000) is None
    assert circuit.admit(probing, NOW + 999_999) is None


def test_the_probes_success_closes_it() -> None:
    assert circuit.succeeded(admitted(opened(), NOW + 1_000), probe=True) == CLOSED


def test_each_failed_probe_doubles_the_wait_up_to_a_bound() -> None:
    standing, now, waits = opened(), NOW, []
    for _ in range(7):
        assert standing.opened_until is not None
        now = standing.opened_until
        standing = fail(admitted(standing, now), probe=True, now=now)
        waits.append((standing.opened_until or 0) - now)
    assert waits == [2_000, 4_000, 8_000, 16_000, 16_000, 16_000, 16_000]
    assert waits[-1] == 1_000 * LONGEST_WAIT


def test_a_probe_without_a_verdict_leaves_the_way_to_another() -> None:
    standing = circuit.without_verdict(admitted(opened(), NOW + 1_000), probe=True)
    assert circuit.admit(standing, NOW + 1_000) is not None


def test_calls_that_began_before_it_opened_neither_close_it_nor_keep_it_open() -> None:
    standing = opened()
    assert circuit.succeeded(standing, probe=False) == standing
    assert fail(standing, now=NOW + 500) == standing
    assert circuit.without_verdict(standing, probe=False) == standing


def test_errors_of_the_callers_making_and_rate_limits_do_not_count() -> None:
    def counts(code: ErrorCode, status: int = 0) -> bool:
        return circuit.speaks_against_the_provider(Fault(code=code, message="", http_status=status))

    assert counts(ErrorCode.SERVER_ERROR, 500)
    assert counts(ErrorCode.SERVER_ERROR, 200)
    assert counts(ErrorCode.NETWORK_ERROR)
    assert counts(ErrorCode.TIMEOUT)
    assert counts(ErrorCode.UNKNOWN_ERROR, 599)
    assert not counts(ErrorCode.UNKNOWN_ERROR, 418)
    for code in set(ErrorCode) - {ErrorCode.SERVER_ERROR, ErrorCode.NETWORK_ERROR, ErrorCode.TIMEOUT, ErrorCode.UNKNOWN_ERROR}:
        assert not counts(code, 429)


@given(st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "gone"]), st.integers(0, 3_000)), max_size=60))
def test_whatever_happens_there_is_at_most_one_probe_and_a_way_back(steps: list[tuple[str, int]]) -> None:
    standing, now = CLOSED, 0
    under_way: list[bool] = []
    for what, pause in steps:
        now += pause
        if what == "begin":
            before = circuit.state(standing, now)
            after = circuit.admit(standing, now)
            assert (after is None) == (before is CircuitState.OPEN or (before is CircuitState.HALF_OPEN and any(under_way)))
            if after is not None:
                under_way.append(after is not standing)
                standing = after
        elif under_way:
            probe = under_way.pop(0)
            match what:
                case "good":
                    standing = circuit.succeeded(standing, probe=probe)
                case "bad":
                    standing = fail(standing, probe=probe, now=now)
                case _:
                    standing = circuit.without_verdict(standing, probe=probe)
        assert sum(under_way) <= 1
        assert standing.probing == any(under_way)
    # Once all calls are over and time has passed, the next one goes through.
    for probe in under_way:
        standing = circuit.without_verdict(standing, probe=probe)
    assert circuit.admit(standing, now + 1_000 * LONGEST_WAIT) is not None
