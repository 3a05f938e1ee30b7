"""The counters of limits, held against a tally of everything that was reserved and settled."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.witness import Witness
from headrace_server.domain.limits import LimitType, Refused, Window
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.store.counters import Counters, Held, WindowKey

MINUTE = 60_000
DAY = 1_440 * MINUTE


@dataclass(slots=True)
class Tally:
    """What was settled against one limit, by the number of the minute or day in which that happened. Both only go forward."""

    span: int
    latest: int = 0
    used: Counter[int] = field(default_factory=Counter)

    def now(self, time: int) -> int:
        self.latest = max(self.latest, time // self.span)
        return self.latest

    def counts_at(self, time: int) -> int:
        """What counts against the limit: days end, and of the last minute that share counts that is within 60 seconds."""
        number = self.now(time)
        if self.span == DAY:
            return self.used[number]
        still = min((number + 1) * MINUTE - time, MINUTE)
        return self.used[number] + -(-self.used[number - 1] * still // MINUTE)


class WitnessedCounters(Counters):
    """Does as Counters does, and tells the witness of everything that does not add up."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness
        self._tallies: defaultdict[WindowKey, Tally] = defaultdict(lambda: Tally(MINUTE))
        self.clock_is_sound = True
        """Whether wall clocks agree: after one was set, windows may have ended early or late."""

    def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], node: str, now: int) -> Refused | None:
        refused = super().reserve(reservation, limits, node, now)
        if refused is None:
            for limit_type, limit in limits.items():
                key = (reservation.provider, reservation.model, limit_type)
                taken = self._tally(key).counts_at(now) + self._held_in(key)
                if taken > limit and self.clock_is_sound:
                    self._witness.blame(f"{reservation.request_id}: admitted to {key} with {taken} of {limit} taken")
        self._look()
        return refused

    def settle(self, settlement: Settlement, now: int) -> None:
        reserved = settlement.reservation
        held = self.held.get((reserved.request_id, reserved.attempt))
        if held is None:
            return super().settle(settlement, now)
        self._witness.settled.append((held, settlement))
        before = {limit_type: self.windows.get((reserved.provider, reserved.model, limit_type)) for limit_type in held.limit_types}
        super().settle(settlement, now)
        for limit_type, window in before.items():
            if window is not None:
                self._look_at_window(held, settlement, limit_type, window, now)
        self._look()

    def _look_at_window(self, held: Held, settlement: Settlement, limit_type: LimitType, before: Window, now: int) -> None:
        """A settlement adds what was used. A provider's word may take from what is left, and never gives."""
        key = (held.reservation.provider, held.reservation.model, limit_type)
        tally, after, left = self._tally(key), self.windows[key], settlement.left.get(limit_type)
        used = settlement.requests
        if limit_type is LimitType.TOKENS_PER_MINUTE:
            used = held.reservation.tokens if settlement.tokens is None else settlement.tokens
        lowered = after.lowered - (before.lowered if before.reset_at == after.reset_at else 0)
        number = tally.now(now)
        tally.used[number] += used + lowered
        if not self.clock_is_sound:
            return
        if after.current_usage != tally.used[number]:
            self._witness.blame(f"{key} counts {after.current_usage} as used, it is {tally.used[number]}")
        remains = after.limit_value - tally.counts_at(now) - self._held_in(key)
        if lowered < 0 or (lowered and left is None) or (left is not None and remains > left):
            self._witness.blame(f"{key} was lowered by {lowered} and has {remains} left, the provider said {left}")
        self._witness.sights["limit lowered"] += lowered > 0

    def _tally(self, key: WindowKey) -> Tally:
        tally = self._tallies[key]
        if key[2] is LimitType.REQUESTS_PER_DAY:
            tally.span = DAY
        return tally

    def _held_in(self, key: WindowKey) -> int:
        """What live reservations take of a limit."""
        return sum(
            held.reservation.tokens if key[2] is LimitType.TOKENS_PER_MINUTE else 1
            for held in self.held.values()
            if key[2] in held.limit_types and key[:2] == (held.reservation.provider, held.reservation.model)
        )

    def _look(self) -> None:
        for key, window in self.windows.items():
            if window.reserved != (held := self._held_in(key)):
                self._witness.blame(f"{key} counts {window.reserved} as reserved, {held} are held")
