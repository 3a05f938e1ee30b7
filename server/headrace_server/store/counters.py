"""Rate limits as stored: windows, and the reservations that are held in them. One arithmetic for every store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from headrace_server.domain.errors import ReplaySafety
from headrace_server.domain.limits import LimitType, Refused, Window, admit, lower, settle, window_end
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.record import LogRow
from headrace_server.domain.usage import UsageSource

WindowKey = tuple[str, str, LimitType]
"""Provider, model and kind of limit."""
HeldKey = tuple[str, int]
"""Request id and attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A row of rate_limit_reservations: a reservation, the windows that hold it, and the process that made it."""

    reservation: Reservation
    limit_types: tuple[LimitType, ...]
    node: str
    created_at: int


@dataclass(slots=True)
class Counters:
    """Windows and reservations: all of them, or those that a transaction touches."""

    windows: dict[WindowKey, Window] = field(default_factory=dict)
    held: dict[HeldKey, Held] = field(default_factory=dict)

    def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], node: str, now: int) -> Refused | None:
        """Reserve in all windows or in none. An attempt that holds this very reservation already is admitted as it is."""
        key = (reservation.request_id, reservation.attempt)
        held = self.held.get(key)
        if held is not None and held.reservation == reservation:
            return None
        if held is not None:
            # The attempt went to another provider before its call was begun.
            self.settle(Settlement(reservation=held.reservation, requests=0, tokens=0), now)
        windows = [self._window(reservation, limit_type, limit, now) for limit_type, limit in limits.items()]
        outcome = admit(windows, reservation.tokens, now, reservation.zone)
        if isinstance(outcome, Refused):
            return outcome
        for window in outcome.windows:
            self.windows[window.provider, window.model, window.limit_type] = window
        self.held[key] = Held(reservation=reservation, limit_types=tuple(limits), node=node, created_at=now)
        return None

    def _window(self, reservation: Reservation, limit_type: LimitType, limit: int, now: int) -> Window:
        provider, model, zone = reservation.provider, reservation.model, reservation.zone
        window = self.windows.get((provider, model, limit_type))
        if window is not None:
            return replace(window, limit_value=limit)
        reset_at = window_end(limit_type, now, zone)
        return Window(provider=provider, model=model, limit_type=limit_type, limit_value=limit, reset_at=reset_at)

    def settle(self, settlement: Settlement, now: int) -> None:
        """End a reservation, and believe the provider on what is left. One that is not held, or was settled before, changes nothing."""
        held = self.held.pop((settlement.reservation.request_id, settlement.reservation.attempt), None)
        if held is None:
            return
        reserved = held.reservation
        for limit_type in held.limit_types:
            key = (reserved.provider, reserved.model, limit_type)
            window = self.windows.get(key)
            if window is None:
                continue
            if limit_type is LimitType.TOKENS_PER_MINUTE:
                used = reserved.tokens if settlement.tokens is None else settlement.tokens
                window = settle(window, reserved.tokens, used, now, reserved.zone)
            else:
                window = settle(window, 1, settlement.requests, now, reserved.zone)
            left = settlement.left.get(limit_type)
            # An end that was written down late, after another window had begun, says nothing of that one.
            if left is not None and window.reset_at <= window_end(limit_type, now, reserved.zone):
                window = lower(window, left, now, reserved.zone)
            self.windows[key] = window

    def of(self, request_id: str) -> Iterator[Held]:
        """What a request holds."""
        return (held for held in list(self.held.values()) if held.reservation.request_id == request_id)


def settlement_of(held: Held, row: LogRow | None) -> Settlement:
    """How a reservation that nobody settled must end, by what the request's row says of the attempt (the first is attempt 1).

    No intent of the attempt on record, or one that was not sent: nothing was used. Usage that the provider told: that much. Else all
    that was reserved, or more where more is known.
    """
    reservation = held.reservation
    if row is None:
        return Settlement(reservation=reservation)
    if reservation.attempt > len(row.attempts):
        return Settlement(reservation=reservation, requests=0, tokens=0)
    attempt = row.attempts[max(reservation.attempt, 1) - 1]
    if attempt.replay_safety is ReplaySafety.NOT_SENT:
        return Settlement(reservation=reservation, requests=0, tokens=0)
    if attempt.usage is None:
        return Settlement(reservation=reservation)
    known = attempt.usage.source is UsageSource.PROVIDER
    used = attempt.usage.total_tokens
    return Settlement(reservation=reservation, tokens=used if known else max(used, reservation.tokens))
