"""What the headers of an answer say is left of a provider's limits. Pure; each dialect brings its table."""

import re
from collections.abc import Iterable, Mapping

from headrace_server.domain.limits import MINUTE, LimitType
from headrace_server.providers.dialect import LimitHeader
from headrace_server.providers.faults import until_reset

_COUNT = re.compile(r"\s*([0-9]{1,15})\s*", re.ASCII)
"""What is anything else (negative, a fraction, not a number, longer than any limit) says nothing."""

_BARE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]*)?)\s*", re.ASCII)


def left(table: Iterable[LimitHeader], headers: Mapping[str, str], now: int) -> dict[LimitType, int]:
    """What is left, by the headers that are there and make sense. `now` is in milliseconds since the epoch."""
    found: dict[LimitType, int] = {}
    for header in table:
        value = headers.get(header.name)
        if value is None or (count := _COUNT.fullmatch(value)) is None:
            continue
        of_the_day = header.reset and _is_far(headers.get(header.reset, ""), now)
        limit_type = LimitType.REQUESTS_PER_DAY if of_the_day else header.limit_type
        found[limit_type] = min(int(count[1]), found.get(limit_type, int(count[1])))
    return found


def _is_far(reset: str, now: int) -> bool:
    """Whether a limit is renewed so late that it cannot be one of a minute.

    A bare number is seconds, or, on Azure, milliseconds: it is far if it is in either. Of a date, the clocks may differ.
    """
    if bare := _BARE.fullmatch(reset):
        return float(bare[1]) > MINUTE
    delay = until_reset(reset.strip(), now)
    return delay is not None and delay > 2 * MINUTE
