"""Token counts, counted in the same way for every dialect."""

from enum import StrEnum

from headrace_server.domain.base import Count, Model


class UsageSource(StrEnum):
    """Where token counts come from."""

    PROVIDER = "provider"
    PARTIAL = "partial"
    ESTIMATED = "estimated"


class Usage(Model):
    """Tokens of one answer: input includes cached tokens, output includes reasoning."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    cached_input_tokens: Count = 0
    reasoning_tokens: Count = 0
    source: UsageSource | None = None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            source=self.source if self.source == other.source else UsageSource.PARTIAL,
        )


MOST_TOKENS = 2**31 - 1
"""Larger counts are a provider's mistake and are clamped: the API's counts are 32 bits wide."""


def clamp(tokens: object) -> int:
    """A token count as a provider sent it, made sane: anything but a number is 0, and so is a negative one."""
    if isinstance(tokens, bool) or not isinstance(tokens, int | float) or tokens != tokens:
        return 0
    return int(min(max(tokens, 0), MOST_TOKENS))


def falls(usage: Usage, later: Usage) -> bool:
    """Whether a later count is lower. Providers count up while they answer: tokens are not taken back."""
    return later.input_tokens < usage.input_tokens or later.output_tokens < usage.output_tokens


def estimate_tokens(characters: int) -> int:
    """Tokens of a text by its length: four characters each, rounded up."""
    return min(-(-characters // 4), MOST_TOKENS)
