"""What an answer costs, by the offline price table of the package genai-prices.

A price is looked up once for each provider's address and model; after that a cost is three multiplications. Prices in dollars per
million tokens are micro-dollars per token. Tokens written to a cache count as plain input: providers do not tell all of them apart.
"""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from headrace_server.domain.provider import Provider
from headrace_server.domain.usage import Usage


class Prices:
    """The price table, read when it is first asked for (a quarter of a second: `load` does it ahead of time)."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    @staticmethod
    def load() -> None:
        """Read the table."""
        from genai_prices import data_snapshot

        data_snapshot.get_snapshot()

    def cost(self, provider: Provider, model: str, usage: Usage) -> int | None:
        """Cost in micro-USD; None where the address or the model has no price."""
        key = (provider.api_url, model)
        if key not in self._known:
            self._known[key] = _look_up(*key)
        if (price := self._known[key]) is None:
            return None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        read = _rate(price.cache_read_mtok, usage.input_tokens)
        written = _rate(price.input_mtok, usage.input_tokens) or Decimal(0)
        said = _rate(price.output_mtok, usage.input_tokens) or Decimal(0)
        total = (usage.input_tokens - cached) * written + cached * (written if read is None else read) + usage.output_tokens * said
        return int(total.quantize(Decimal(1), ROUND_HALF_UP))


def _look_up(api_url: str, model: str) -> Any:
    from genai_prices import data_snapshot

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, None, api_url)
    except LookupError:
        return None
    return found.get_prices(datetime.now(UTC))


def _rate(price: Any, input_tokens: int) -> Decimal | None:
    """The rate that holds for a prompt of this length: some models cost more when it is long."""
    if price is None or isinstance(price, Decimal):
        return price
    rate: Decimal = price.base
    for tier in price.tiers:
        if input_tokens > tier.start:
            rate = tier.price
    return rate
