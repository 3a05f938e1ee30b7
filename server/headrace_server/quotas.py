"""What is used and left of the limits of providers: the stored counters, under the settings that hold now, at the time that it is now."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from headrace_server.domain.limits import LimitType, Window, roll, window_end
from headrace_server.domain.provider import Provider
from headrace_server.policies import limits_of


def in_force(windows: Iterable[Window], providers: Iterable[Provider], now: int) -> list[Window]:
    """Those of the stored counters whose limit is set, as they stand at `now`, in their order."""
    set_now = {provider.provider: (limits_of(provider), provider.config.zone) for provider in providers}
    found = []
    for window in windows:
        limits, zone = set_now.get(window.provider, ({}, "UTC"))
        if (limit := limits.get(window.limit_type)) is not None:
            found.append(roll(replace(window, limit_value=limit), now, zone))
    return found


def counters_of(provider: Provider, model: str, windows: Iterable[Window], now: int) -> tuple[Window, ...]:
    """A counter for each limit of a provider that a request for this model meets at `now`: the stored one, or a new one."""
    stored: Mapping[LimitType, Window] = {window.limit_type: window for window in windows}
    zone = provider.config.zone
    counters = []
    for kind, limit in limits_of(provider).items():
        new = Window(provider=provider.provider, model=model, limit_type=kind, limit_value=limit, reset_at=window_end(kind, now, zone))
        counters.append(roll(replace(stored.get(kind, new), limit_value=limit), now, zone))
    return tuple(counters)
