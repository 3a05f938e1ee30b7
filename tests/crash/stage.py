"""What a run of crashes is played on: a provider that outlives the service, a database, and the providers that the service knows."""

import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from crash.callers import Callers, Sent
from crash.nursery import Nursery
from headrace_server.fake_provider import FakeProvider

CLOCK = int(datetime(2026, 11, 2, 12, 0, 5, tzinfo=UTC).timestamp() * 1000)
"""Where the services' wall clock stands still: every request of a run falls into the same minute and the same day."""

LIMITED, UNLIMITED, CLAUDE, TIGHT, DEAD = "limited", "unlimited", "claude-like", "tight", "dead"

LIMITS: dict[str, dict[str, int]] = {
    LIMITED: {"rate_limit_rpm": 1_000_000, "rate_limit_tpm": 2_000_000_000, "rate_limit_rpd": 1_000_000},
    CLAUDE: {"rate_limit_rpd": 1_000_000},
    TIGHT: {"rate_limit_rpm": 6},
    DEAD: {"rate_limit_rpm": 1_000_000, "rate_limit_tpm": 2_000_000_000},
}
"""Providers with limits: one of which nothing is ever refused, one that is soon full, one that nobody can reach."""


@dataclass
class Stage:
    """A database with everything that has happened around it."""

    folder: Path
    provider: FakeProvider
    nursery: Nursery
    sent: dict[str, Sent] = field(default_factory=dict)
    """Every request, by its id."""
    streamed: list[str] = field(default_factory=list)
    """Ids of those that were sent by StreamGenerate."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "headrace.toml"
        self.config.write_text(_config(self.database, self.provider))

    @property
    def database(self) -> Path:
        """The file of the store."""
        return self.folder / "headrace.db"

    def arguments(self, failpoint: str | None = None) -> list[str]:
        """What the service is started with."""
        point = ["--failpoint", failpoint] if failpoint else []
        return ["--config", str(self.config), "--clock", str(CLOCK), *point]

    async def start(self, failpoint: str | None = None) -> str:
        """Start the service; its address. Raises DiedAtStart."""
        return await self.nursery.start(*self.arguments(failpoint))

    @contextlib.asynccontextmanager
    async def callers(self, address: str) -> AsyncIterator[Callers]:
        """Callers of the service at this address."""
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield Callers(channel, self.sent)

    def calls(self) -> Counter[str]:
        """How often the provider was called, by request id: each prompt begins with it."""
        return Counter(call.prompt.text.partition(" ")[0] for call in self.provider.requests if call.prompt)


def _config(database: Path, provider: FakeProvider) -> str:
    def table(name: str, **more: Any) -> str:
        values = {"dialect": "openai", "api_url": provider.api_url("openai"), "default_model": "echo", **LIMITS.get(name, {}), **more}
        return f"[providers.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    return "\n".join(
        (
            f'listen = "127.0.0.1:0"\ndatabase = "sqlite:///{database}"\ndrain_timeout = 0.3\nlog_level = "warning"\n',
            table(LIMITED),
            table(UNLIMITED, priority=10),
            table(CLAUDE, dialect="claude", api_url=provider.api_url("claude"), api_key="sk-ant-0123456789abcdef"),
            table(TIGHT),
            table(DEAD, api_url="http://127.0.0.1:9/v1"),
        )
    )
