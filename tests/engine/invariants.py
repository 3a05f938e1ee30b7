"""What must hold in any run of engines, whatever happens in it: whenever all is done that an instant asks for, and at the end."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from engine.canary import WitnessedTrace
from engine.witness import Told, Witness, WitnessedCall
from headrace_server.domain.errors import ErrorCode, Fault, Subreason
from headrace_server.domain.events import Completed, Discontinuity, Failed, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import TERMINAL, State, Transition
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import TextPart
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.result import GenerationResult
from headrace_server.engine import EngineSettings
from headrace_server.generation import Generation
from headrace_server.policies import retry_policy
from headrace_server.store.counters import settlement_of
from headrace_server.store.memory import MemoryStore

SLACK = 10.0
"""Seconds that an end may take once it is due: longer than the slowest store and connection of the simulation take."""
ABORT = 0.1
"""Seconds within which a call is being closed once its generation is stopped."""


def at_rest(witness: Witness, store: MemoryStore, writing: Collection[str]) -> Iterator[str]:
    """Everything that is not as it must be before time passes. `writing`: requests of which a write is under way."""
    held = _by_request(each.reservation for each in store._counters.held.values())
    wanted = _by_request(
        told.run.ledger.reservation
        for told in witness.told.values()
        if told.run is not None and told.ended is None and told.run.ledger.reservation is not None
    )
    others = {*writing, *witness.swept, *witness.swept_held, *(request_id for _, request_id in witness.lost_writes)}
    for request_id in (held.keys() | wanted.keys()) - others:
        if held.get(request_id) != wanted.get(request_id):
            yield f"{request_id}: {held.get(request_id)} is held, its run knows of {wanted.get(request_id)}"
    for told in witness.told.values():
        taking = told.generation._taking
        witness.sights["waited for readers"] += taking is not None and not taking.done()
        if taking is not None and not taking.done() and not told.generation.is_ahead and told.ended is None:
            yield f"{told.node} {told.request_id}: it waits for readers who have taken all"


def _by_request(reservations: Iterable[Reservation]) -> dict[str, list[Reservation]]:
    found: dict[str, list[Reservation]] = {}
    for reservation in reservations:
        found.setdefault(reservation.request_id, []).append(reservation)
    return found


def violations(witness: Witness, store: MemoryStore, traces: Iterable[WitnessedTrace]) -> Iterator[str]:
    """Everything that is not as it must be once all is quiet, before another node tidies up."""
    yield from witness.wrong
    for told in witness.told.values():
        yield from (f"{told.node} {told.request_id}: {wrong}" for wrong in _of_generation(told, witness, store))
    yield from _of_rows(witness, store)
    yield from _of_calls(witness)
    yield from _of_verdicts(witness)
    yield from _of_limits(witness, store)
    yield from (f"{trace.request_id}: its trace was ended like this: {trace.ends}" for trace in traces if len(trace.ends) != 1)


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
        calls = [call for call in witness.calls if call.opened and call.generation is told.generation]
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
    runs: dict[str, Generation] = {}
    for number, call in enumerate(witness.calls, 1):
        request_id, name = call.request.request_id, call.provider.provider
        made[request_id, name] += 1
        if call.opened and not call.closed:
            yield f"{request_id}: call {number} was not closed"
        if made[request_id, name] > retry_policy(call.request, call.provider).max_attempts:
            yield f"{request_id}: call {number} is one more than {name} may be called"
        if runs.setdefault(request_id, call.generation) is not call.generation:
            yield f"{request_id}: call {number} was made by a second run of the same request"


def _of_verdicts(witness: Witness) -> Iterator[str]:
    """The circuit was told what the provider did in each call, and silence was the provider's own."""
    for number, call in enumerate(witness.calls, 1):
        who = f"{call.request.request_id}: call {number}"
        if call.leave is None:
            continue  # said when it went out
        if call.leave not in witness.verdicts:
            yield f"{who} has ended, and its circuit waits for a verdict"
            continue
        verdict, was_stopped = witness.verdicts[call.leave], witness.told[call.generation].stopped is not None
        if call.complete and call.fault is None and verdict is not None:
            yield f"{who} was answered in full, its circuit was told {verdict}"
        if call.fault is not None and verdict is not call.fault and not was_stopped:
            yield f"{who} failed with {call.fault}, its circuit was told {verdict}"
        if call.fault is None and verdict is not None:
            yield from (f"{who}: {wrong}" for wrong in _of_silence(call, verdict))


def _of_silence(call: WitnessedCall, verdict: Fault) -> Iterator[str]:
    wanted, ours = call.request.timeouts, call.provider.timeout_ms
    allowed, silence = {
        Subreason.TTFT: (wanted.first_token or ours, call.silence_of_content),
        Subreason.STREAM_IDLE: (wanted.idle or ours, call.silence),
        Subreason.PROGRESS: (wanted.progress or EngineSettings().progress_timeout, call.silence_of_content),
    }.get(Subreason(verdict.subreason), (0, 0.0))
    if verdict.code is not ErrorCode.TIMEOUT or silence * 1000 < allowed - 1:
        yield f"the provider was silent for {silence:.3f} s, and its circuit was told {verdict}"


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
        if LimitType.REQUESTS_PER_DAY in held.limit_types:
            requests[reservation.provider, reservation.model] += settlement.requests
        yield from _of_what_is_left(settlement, witness)
        told, recorded = _used(settlement), _used(settlement_of(held, row))
        # What was given back was for an attempt that never was, and whose number may be another's by now.
        if row.state in TERMINAL and settlement.requests and told != recorded:
            yield f"{row.request_id}: attempt {reservation.attempt} was settled with {told} requests and tokens, its row says {recorded}"
    for window in store._counters.windows.values():
        # Days do not end during a run; minutes do.
        counted = window.current_usage - window.lowered
        if window.limit_type is LimitType.REQUESTS_PER_DAY and counted != requests[window.provider, window.model]:
            yield f"{window.provider}: {counted} requests counted, {requests[window.provider, window.model]} settled"


def _of_what_is_left(settlement: Settlement, witness: Witness) -> Iterator[str]:
    """What the provider said in that very call, and nothing else."""
    reserved = settlement.reservation
    key = (reserved.request_id, reserved.attempt, reserved.provider)
    call = next((call for call in witness.calls if (call.request.request_id, call.attempt, call.provider.provider) == key), None)
    said: dict[LimitType, int] = {}
    if call is not None and call.opened:
        said |= call.left
    if call is not None and call.fault is not None and call.fault.left:
        said = dict(call.fault.left)
    if not settlement.left.items() <= said.items():
        yield f"{reserved.request_id}: attempt {reserved.attempt} was settled with {settlement.left}, the provider said {said}"


def _used(settlement: Settlement) -> tuple[int, int]:
    return settlement.requests, settlement.reservation.tokens if settlement.tokens is None else settlement.tokens


def _text(result: GenerationResult | None) -> str:
    return "" if result is None else "".join(part.text for part in result.content if isinstance(part, TextPart))
