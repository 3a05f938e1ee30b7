"""The engine over an in-memory store and providers that play scripts."""

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from headrace_server.catalog import Catalog
from headrace_server.domain.errors import ErrorCode, Fault, ReplaySafety
from headrace_server.domain.events import StreamChunk, TextDelta
from headrace_server.domain.lifecycle import Transition
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.engine import Caller, Engine, EngineSettings
from headrace_server.generation import Generation
from headrace_server.providers.scripted import Script, ScriptedUpstream
from headrace_server.rpc.codec_event import StoredEvents
from headrace_server.store.memory import MemoryStore
from headrace_server.telemetry.null import NullTelemetry

START = 1_800_000_000_000


class PlainCipher:
    def encrypt(self, provider: str, secret: str) -> str:
        return f"{provider}={secret}"

    def decrypt(self, provider: str, token: str) -> str:
        return token.removeprefix(f"{provider}=")


class Bench:
    """An engine, what it stands on, and short ways to ask it."""

    def __init__(self, scripts: Sequence[Script], providers: Sequence[Provider], **settings: int) -> None:
        self.now = START
        self.upstream = ScriptedUpstream(scripts)
        self.store = MemoryStore(node="node-1", clock=lambda: self.now)
        self.catalog = Catalog(self.store, PlainCipher(), from_file=providers)
        self.engine = Engine(
            journal=self.store,
            upstream=self.upstream,
            routes=self.catalog,
            codec=StoredEvents(),
            telemetry=NullTelemetry(),
            node="node-1",
            clock=lambda: self.now,
            settings=EngineSettings(**settings),
            price=lambda provider, model, usage: usage.total_tokens * 2,
            random=lambda: 0.5,
        )

    async def open(self) -> "Bench":
        await self.store.open()
        await self.catalog.load()
        return self

    def start(self, *, time_left: float | None = None, **fields: Any) -> Generation:
        return self.engine.start(request(**fields), Caller(time_left=time_left))

    async def run(self, **fields: Any) -> Generation:
        generation = self.start(**fields)
        await generation.wait()
        return generation


def request(**fields: Any) -> GenerateRequest:
    """A small valid request, with these fields."""
    plain: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "stream": True,
        "provider": "first",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}],
        "retry": {"initial_delay": 1},
    }
    return GenerateRequest.model_validate(plain | fields)


def provider(name: str, **fields: Any) -> Provider:
    """A provider that is ready for use."""
    plain: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "provider": name,
        "dialect": Dialect.OPENAI,
        "api_url": f"http://{name}.test/v1",
        "default_model": f"{name}-model",
        "api_key": SecretStr("key-of-" + name),
        "created_at": START,
        "updated_at": START,
    }
    return Provider.model_validate(plain | fields)


def says(*texts: str, **fields: Any) -> Script:
    """A call that streams these texts and ends well."""
    usage = Usage(input_tokens=3, output_tokens=4, total_tokens=7, source=UsageSource.PROVIDER)
    return Script(steps=[[TextDelta(text)] for text in texts], usage=usage, **fields)


def fault(code: ErrorCode = ErrorCode.SERVER_ERROR, **fields: Any) -> Fault:
    """A fault that may be retried, unless the fields say otherwise."""
    return Fault(**{"code": code, "message": f"the provider said {code}", "retryable": True, "http_status": 500} | fields)


def refuses(code: ErrorCode = ErrorCode.SERVER_ERROR, **fields: Any) -> Script:
    """A call that is answered by an error."""
    return Script(refused=fault(code, **fields))


def unreachable() -> Script:
    """A call that reaches nobody."""
    return Script(refused=fault(ErrorCode.NETWORK_ERROR, http_status=0, replay_safety=ReplaySafety.NOT_SENT))


def states(generation: Generation) -> list[str]:
    """The states that a generation went through, as readers were told."""
    told = [event for event in generation.attach(0, lambda: None).take() if isinstance(event, Transition)]
    return list(itertools.chain([told[0].from_state], (event.to_state for event in told)))


def text(generation: Generation) -> str:
    """The text of its chunks."""
    chunks = [event for event in generation.attach(0, lambda: None).take() if isinstance(event, StreamChunk)]
    return "".join(chunk.delta.text for chunk in chunks if isinstance(chunk.delta, TextDelta))
