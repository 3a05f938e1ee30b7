"""Bugs to plant, each by itself, to see that the simulation finds them. They live in a test's process and go with the block."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from headrace_server import admission, health, queues, run
from headrace_server.domain import circuit, limits, retry
from headrace_server.domain.errors import Fault
from headrace_server.domain.events import Discontinuity
from headrace_server.generation import Generation
from headrace_server.ledger import Ledger
from headrace_server.providers.scripted import ScriptedCall
from headrace_server.store import counters


def every_call_is_let_through_when_half_open() -> Any:
    def admit(state: circuit.Circuit, now: int) -> circuit.Circuit | None:
        return None if circuit.state(state, now) == "open" else replace(state, probing=state.opened_until is not None)

    return patch.object(circuit, "admit", admit)


def an_open_circuit_is_not_looked_at() -> Any:
    return patch.object(circuit, "admit", lambda state, now: state)


def a_circuit_never_opens() -> Any:
    return patch.object(circuit, "failed", lambda before, **_: before)


def a_good_probe_does_not_close_the_circuit() -> Any:
    return patch.object(circuit, "succeeded", lambda before, *, probe: before)


def a_verdict_is_forgotten_when_a_call_is_stopped() -> Any:
    return patch.object(health.Health, "given_up", lambda self, call: None)


def a_probe_stays_one_after_a_reset() -> Any:
    return patch.object(health.Health, "_is_probe", lambda self, call: call.probe)


def the_retry_budget_is_not_asked() -> Any:
    return patch.object(run.Run, "_check_retry", lambda self, provider, fault: self._check_circuit(provider, fault))


def the_retry_budget_is_too_large() -> Any:
    return patch.object(retry, "ALWAYS_ALLOWED", 12)


def one_call_too_many() -> Any:
    def decide(fault: Fault, policy: retry.RetryPolicy, *, attempt: int, **rest: Any) -> retry.Decision:
        return honest(fault, policy, attempt=attempt - 1, **rest)

    honest = retry.decide
    return patch.object(retry, "decide", decide)


def a_place_is_not_handed_on_when_somebody_leaves() -> Any:
    def leave(self: queues._Queue, place: queues.Place) -> None:
        if place in self.waiting:
            self.waiting.remove(place)

    return patch.object(queues._Queue, "leave", leave)


def a_place_is_given_to_one_who_has_left() -> Any:
    def hand_on(self: queues._Queue) -> None:
        while self.waiting and self.running < self.limit:
            _, _, turn = self.waiting.pop(0)
            self.running += 1
            if not turn.done():
                turn.set_result(None)

    return patch.object(queues._Queue, "hand_on", hand_on)


def the_last_to_come_is_the_first_to_go() -> Any:
    def hand_on(self: queues._Queue) -> None:
        while self.waiting and self.running < self.limit:
            _, _, turn = self.waiting.pop()
            if not turn.cancelled():
                self.running += 1
                turn.set_result(None)

    return patch.object(queues._Queue, "hand_on", hand_on)


def a_place_that_is_handed_on_is_not_counted() -> Any:
    def hand_on(self: queues._Queue) -> None:
        honest(SimpleNamespace(waiting=self.waiting, running=self.running, limit=self.limit))

    honest = queues._Queue.hand_on
    return patch.object(queues._Queue, "hand_on", hand_on)


def a_reservation_is_forgotten_at_fallback() -> Any:
    async def give_back(self: run.Run) -> None:
        self.ledger.release()

    return patch.object(run.Run, "_give_back", give_back)


def an_attempt_is_never_settled() -> Any:
    return patch.object(Ledger, "_settlement", lambda self, safety, usage: setattr(self, "reservation", None))


def what_was_reserved_stays_reserved() -> Any:
    return patch.object(counters, "settle", lambda window, reserved, actual, now, zone: limits.settle(window, 0, actual, now, zone))


def a_limit_admits_one_more() -> Any:
    def admit(windows: Any, tokens: int, now: int, zone: str) -> limits.Admitted | limits.Refused:
        raised = [replace(window, limit_value=window.limit_value + 1) for window in windows]
        return limits.admit(raised, tokens, now, zone)

    return patch.object(counters, "admit", admit)


def a_provider_may_raise_what_is_left() -> Any:
    def lower(window: limits.Window, remaining: int, now: int, zone: str) -> limits.Window:
        unseen = window.limit_value - limits.used(window, now) - window.reserved - remaining
        return replace(window, current_usage=max(0, window.current_usage + unseen), lowered=max(0, window.lowered + unseen))

    return patch.object(counters, "lower", lower)


def what_is_left_is_taken_to_the_next_provider() -> Any:
    def begin_attempt(self: Ledger, *args: Any) -> None:
        left = self.left
        honest(self, *args)
        self.left = left

    honest = Ledger.begin_attempt
    return patch.object(Ledger, "begin_attempt", begin_attempt)


def the_discontinuity_is_forgotten() -> Any:
    def publish(self: Generation, events: Any) -> None:
        honest(self, [event for event in events if not isinstance(event, Discontinuity)])

    honest = Generation.publish
    return patch.object(Generation, "publish", publish)


def an_intent_is_not_waited_for() -> Any:
    return patch.object(run.Run, "_intend", run.Run._make_sure_of_the_row)


def the_end_is_told_twice() -> Any:
    def publish(self: Generation, events: Any) -> None:
        honest(self, [*events, events[-1]] if events and hasattr(events[-1], "error") else events)

    honest = Generation.publish
    return patch.object(Generation, "publish", publish)


def a_key_is_told_in_a_message() -> Any:
    def check(request: Any, provider: Any, world: Any) -> None:
        try:
            honest(request, provider, world)
        except Exception as error:
            error.fault = replace(error.fault, message=f"{error.fault.message}: {provider.api_key.get_secret_value()}")  # type: ignore[attr-defined]
            raise

    honest = admission.check_provider
    return patch.object(run, "check_provider", check)


def a_bug_is_told_to_the_caller() -> Any:
    def bug(self: run.Run, error: BaseException) -> Fault:
        return replace(honest(self, error), message=str(error))

    honest = run.Run._bug
    return patch.object(run.Run, "_bug", bug)


def readers_are_not_waited_for() -> Any:
    async def caught_up(self: Generation) -> None:
        return None

    return patch.object(Generation, "caught_up", caught_up)


def readers_are_waited_for_for_ever() -> Any:
    return patch.object(Generation, "_look_again", lambda self: None)


def a_pause_counts_as_the_providers_silence() -> Any:
    return patch.object(run.Clocks, "go_on", lambda self, now: setattr(self, "stopped_at", None))


def a_call_is_left_open() -> Any:
    async def close(self: ScriptedCall) -> None:
        return None

    return patch.object(ScriptedCall, "close", close)


BUGS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    plant.__name__.replace("_", " "): plant
    for plant in (
        every_call_is_let_through_when_half_open,
        an_open_circuit_is_not_looked_at,
        a_circuit_never_opens,
        a_good_probe_does_not_close_the_circuit,
        a_verdict_is_forgotten_when_a_call_is_stopped,
        a_probe_stays_one_after_a_reset,
        the_retry_budget_is_not_asked,
        the_retry_budget_is_too_large,
        one_call_too_many,
        a_place_is_not_handed_on_when_somebody_leaves,
        a_place_is_given_to_one_who_has_left,
        the_last_to_come_is_the_first_to_go,
        a_place_that_is_handed_on_is_not_counted,
        a_reservation_is_forgotten_at_fallback,
        an_attempt_is_never_settled,
        what_was_reserved_stays_reserved,
        a_limit_admits_one_more,
        a_provider_may_raise_what_is_left,
        what_is_left_is_taken_to_the_next_provider,
        the_discontinuity_is_forgotten,
        an_intent_is_not_waited_for,
        the_end_is_told_twice,
        a_key_is_told_in_a_message,
        a_bug_is_told_to_the_caller,
        readers_are_not_waited_for,
        readers_are_waited_for_for_ever,
        a_pause_counts_as_the_providers_silence,
        a_call_is_left_open,
    )
}
"""By what is wrong."""
