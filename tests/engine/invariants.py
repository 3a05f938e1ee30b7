"""What must hold after any run of engines, whatever happened in it."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from engine.witness import Told, Witness
from headrace_server.domain.errors import ErrorCode, Subreason
from headrace_server.domain.events import Completed, Discontinuity, Failed, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import TERMINAL, State, Transition
from headrace_server.domain.message import TextPart
from headrace_server.domain.ports import Settlement
from headrace_server.domain.result import GenerationResult
from headrace_server.run import retry_policy
from headrace_server.store.counters import settlement_of
from headrace_server.store.memory import MemoryStore

SLACK = 10.0
"""Seconds that an end may take once it is due: longer than the slowest store and connection of the simulation take."""
ABORT = 0.1
"""Seconds within which a call is being closed once its generation is stopped."""


def violations(witness: Witness, store: MemoryStore) -> Iterator[str]:
    """Everything that is not as it must be once all is quiet, before another node tidies up."""
    yield from witness.wrong
    for told in witness.told.values():
        yield from (f"{told.node} {told.request_id}: {wrong}" for wrong in _of_generation(told, witness, store))
    yield from _of_rows(witness, store)
    yield from _of_calls(witness)
    yield from _of_limits(witness, store)
    yield from (f"{trace.request_id}: its trace was ended like this: {trace.ends}" for trace in witness.traces if len(trace.ends) != 1)


def after_recovery(store: MemoryStore) -> Iterator[str]:
    """What must hold once another node has ended what was left."""
    yield from (f"{row.request_id}: the row stands in {row.state} for ever" for row in store._logs.values() if row.state not in TERMINAL)
    yield from (f"{held.reservation} is held for ever" for held in store._counters.held.values())
    yield from (f"{window} has something reserved for ever" for window in store._counters.windows.values() if window.reserved)


# ---------------------------------------------------------------- what was told


def _of_generation(told: Told, witness: Witness, store: MemoryStore) -> Iterator[str]:
    ends = [event for event in told.events if isinstance(event, Completed | Failed)]
    if len(ends) != 1 or told.events[-1] is not ends[0]:
        yield f"{len(ends)} last events; the last thing told was {str(told.events[-1:])[:200]}"
        return
    if (numbers := [chunk.index for chunk in told.chunks]) != list(range(len(numbers))):
        yield f"chunks were numbered {numbers}"
    yield from _of_transitions(told, ends[0], witness)
    yield from _of_texts(told, ends[0])
    yield from _of_outcome(told, ends[0], witness, store)
    yield from _of_time(told, witness)
    if isinstance(ends[0], Failed) and ends[0].error.subreason == Subreason.INTERNAL and told.request_id not in witness.bugs:
        yield f"a fault of our own ended it: {ends[0].error.message}"


def _of_transitions(told: Told, end: Completed | Failed, witness: Witness) -> Iterator[str]:
    steps = [event for event in told.events if isinstance(event, Transition)]
    if not steps or told.request_id in witness.swept:
        return  # what another node wrote does not follow from what was told here
    if steps[0].from_state is not State.IDLE or any(a.to_state is not b.from_state for a, b in pairwise(steps)):
        yield f"the transitions make no path: {[(step.from_state.value, step.to_state.value) for step in steps]}"
    last = State.COMPLETED if isinstance(end, Completed) else State.FAILED
    if steps[-1].to_state is not last and not _is_unrecorded(end):
        yield f"the last state told is {steps[-1].to_state}, the end {last}"


def _of_texts(told: Told, end: Completed | Failed) -> Iterator[str]:
    """No texts of two calls without a discontinuity between; what stands after the last one is the answer."""
    text = ""
    for event in told.events:
        if isinstance(event, Discontinuity):
            text = ""
        elif isinstance(event, StreamChunk) and isinstance(event.delta, TextDelta):
            text += event.delta.text
            if len({piece.split(".")[0] for piece in text.split("<")[1:]}) > 1:
                yield f"texts of two calls run together: {text}"
    if isinstance(end, Completed) and text != _text(end.result):
        yield f"{text!r} was streamed, the answer is {_text(end.result)!r}"


def _of_outcome(told: Told, end: Completed | Failed, witness: Witness, store: MemoryStore) -> Iterator[str]:
    """What was told is on record, unless the end says that it could not be written down, or is of one who only waited for it."""
    row = store._logs.get(told.request_id)
    stands = "there is no row" if row is None else f"the row is {row.state} {row.error_code or ''}"
    if isinstance(end, Completed):
        if row is None or row.state is not State.COMPLETED or _text(row.response_data) != _text(end.result):
            yield f"completed was told, {stands}"
    elif not _is_unrecorded(end) and not _left_before_the_end(told, end, witness) and (row is None or row.error_code != end.error.code):
        yield f"failed with {end.error.code} was told, {stands}"


def _is_unrecorded(end: Completed | Failed) -> bool:
    return isinstance(end, Failed) and end.error.subreason in (Subreason.STORAGE, Subreason.ALREADY_EXISTS)


def _left_before_the_end(told: Told, end: Failed, witness: Witness) -> bool:
    """Whether it waited for the end of another run of the same request, and was stopped before that came."""
    was_stopped = end.error.code in (ErrorCode.TIMEOUT, ErrorCode.CANCELLED, ErrorCode.INTERRUPTED)
    others = any(other.request_id == told.request_id for other in witness.told.values() if other is not told)
    return was_stopped and others and len(told.events) == 1


def _of_time(told: Told, witness: Witness) -> Iterator[str]:
    assert told.ended is not None
    due = told.began + (told.generation.request.timeouts.total or 600_000) / 1000
    if told.stopped is not None:
        due = min(due, told.stopped)
        calls = [call for call in witness.calls if call.opened and call.traceparent[:35] == told.generation.traceparent[:35]]
        if any(call.closing is not None and call.closing > told.stopped + ABORT for call in calls):
            yield "its call was closed too late after it was stopped"
    if told.ended > due + SLACK:
        yield f"it ended {told.ended - due:.3f} s after it was due"


# ---------------------------------------------------------------- what is on record


def _of_rows(witness: Witness, store: MemoryStore) -> Iterator[str]:
    for request_id, row in store._logs.items():
        calls = sum(call.request.request_id == request_id for call in witness.calls)
        if calls > len(row.attempts):
            yield f"{request_id}: {calls} calls, {len(row.attempts)} attempts on record"
        if row.state not in TERMINAL:
            if not witness.lost_writes & {("finish", request_id), ("accept", request_id)}:
                yield f"{request_id}: the row stands in {row.state}, and no write of its end was lost"
            continue
        history = [step.to_state.value for step in row.transitions]
        if history[-1:] != [row.state] or sum(state in TERMINAL for state in history) != 1:
            yield f"{request_id}: {row.state} after {history}"
        if any(attempt.state not in TERMINAL for attempt in row.attempts):
            yield f"{request_id}: an attempt without an end"
        if (row.state is State.COMPLETED) != (row.error_code is None):
            yield f"{request_id}: {row.state} with the error {row.error_code}"
        lines = [line for line in store._metrics if line.request_id == request_id]
        if sum(line.success for line in lines) != (row.state is State.COMPLETED) or len({line.provider for line in lines}) != len(lines):
            yield f"{request_id}: {row.state}, and its metrics say {[(line.provider, line.success) for line in lines]}"


def _of_calls(witness: Witness) -> Iterator[str]:
    made: Counter[tuple[str, str]] = Counter()
    runs: dict[str, str] = {}
    for number, call in enumerate(witness.calls, 1):
        request_id, name = call.request.request_id, call.provider.provider
        made[request_id, name] += 1
        if call.opened and not call.closed:
            yield f"{request_id}: call {number} was not closed"
        if made[request_id, name] > retry_policy(call.request, call.provider).max_attempts:
            yield f"{request_id}: call {number} is one more than {name} may be called"
        trace_id = call.traceparent.split("-")[1]
        if runs.setdefault(request_id, trace_id) != trace_id:
            yield f"{request_id}: call {number} was made by a second run of the same request"


def _of_limits(witness: Witness, store: MemoryStore) -> Iterator[str]:
    """What a request held is settled once it has ended, by what its row says; the counters hold the sum."""
    for held in store._counters.held.values():
        request_id = held.reservation.request_id
        # Where the end could not be written down, recovery settles.
        if ("finish", request_id) not in witness.lost_writes:
            yield f"{request_id}: it has ended, and attempt {held.reservation.attempt} still holds its reservation"
    requests: Counter[tuple[str, str]] = Counter()
    for held, settlement in witness.settled:
        reservation, row = held.reservation, store._logs[held.reservation.request_id]
        requests[reservation.provider, reservation.model] += settlement.requests
        told, recorded = _used(settlement), _used(settlement_of(held, row))
        # What was given back was for an attempt that never was, and whose number may be another's by now.
        if row.state in TERMINAL and settlement.requests and told != recorded:
            yield f"{row.request_id}: attempt {reservation.attempt} was settled with {told} requests and tokens, its row says {recorded}"
    for window in store._counters.windows.values():
        # Days do not end during a run; minutes do.
        if window.limit_type == "requests_per_day" and window.current_usage != requests[window.provider, window.model]:
            yield f"{window.provider}: {window.current_usage} requests counted, {requests[window.provider, window.model]} settled"


def _used(settlement: Settlement) -> tuple[int, int]:
    return settlement.requests, settlement.reservation.tokens if settlement.tokens is None else settlement.tokens


def _text(result: GenerationResult | None) -> str:
    return "" if result is None else "".join(part.text for part in result.content if isinstance(part, TextPart))
