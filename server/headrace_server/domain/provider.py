"""A provider: a named endpoint that speaks one of the dialects."""

from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, SecretStr

from headrace_server.domain.base import Millis, Model, ModelName, ProviderName, Text, Uuid

DEFAULT_PRIORITY = 100
DEFAULT_MAX_RETRIES = 3
DEFAULT_TIMEOUT_MS = 30_000
MAX_INTEGER = 2**63 - 1


_ASK_FOR_A_KEY = frozenset({"api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"})


@lru_cache(maxsize=1_024)
def _asks_for_a_key(api_url: str) -> bool:
    return urlsplit(api_url).hostname in _ASK_FOR_A_KEY


class Dialect(StrEnum):
    """The form in which a provider is spoken to."""

    CLAUDE = "claude"
    GEMINI = "gemini"
    OPENAI = "openai"


class ProviderSource(StrEnum):
    """Where a provider's settings come from; the first that names it wins."""

    FILE = "file"
    STORE = "store"


class CircuitState(StrEnum):
    """Whether a provider's circuit breaker lets calls through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("must be an IANA time zone such as America/Los_Angeles")
    return value


class ProviderSettings(Model):
    """The further settings of a provider, kept in the column `config_json`."""

    api: Literal["chat", "responses"] = "chat"
    """Which API of the dialect openai is spoken."""
    circuit_failures: Annotated[int, Field(ge=1, le=1_000_000_000)] = 5
    """Failures in a row that open the circuit."""
    circuit_least_calls: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10
    """Calls of the last minute that there must be before half of them failing opens it."""
    circuit_cooldown_ms: Annotated[int, Field(ge=1, le=86_400_000)] = 60_000
    """How long an open circuit stays open before a probe."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many requests run at once; more wait in the queue. None: no bound."""
    queue_length: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    """How many may wait."""
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Whose calendar days daily limits count."""


Limit = Annotated[int, Field(gt=0, le=MAX_INTEGER)]


class ProviderRow(Model):
    """A row of provider_configs. The key is as the key ring encrypted it."""

    id: Uuid
    provider: ProviderName
    dialect: Dialect
    enabled: bool = True
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_PRIORITY
    api_key_encrypted: str | None = None
    api_url: Annotated[Text, Field(min_length=1, max_length=2_048)]
    default_model: ModelName
    max_retries: Annotated[int, Field(ge=1, le=100)] = DEFAULT_MAX_RETRIES
    timeout_ms: Annotated[int, Field(ge=1, le=86_400_000)] = DEFAULT_TIMEOUT_MS
    rate_limit_rpm: Limit | None = None
    rate_limit_tpm: Limit | None = None
    rate_limit_rpd: Limit | None = None
    fallback_providers: Annotated[tuple[ProviderName, ...], Field(max_length=64)] = ()
    config: ProviderSettings = ProviderSettings()
    """Stored as JSON in the column `config_json`."""
    created_at: Millis
    updated_at: Millis


class Provider(ProviderRow):
    """A provider ready for use: its row, its key in the clear, and where the settings came from. Never stored, never logged."""

    api_key: SecretStr | None = Field(default=None, exclude=True)
    source: ProviderSource = ProviderSource.STORE

    @property
    def needs_key(self) -> bool:
        """Whether it is of no use without a key: a vendor's own address asks for one, a server of one's own may not, and says so itself."""
        return _asks_for_a_key(self.api_url)

    @property
    def is_ready(self) -> bool:
        """Whether routing may choose it: it is enabled, and has a key where it needs one."""
        return self.enabled and (self.api_key is not None or not self.needs_key)

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        """Requests a minute, tokens a minute, requests a day; None where there is no limit."""
        return self.rate_limit_rpm, self.rate_limit_tpm, self.rate_limit_rpd
