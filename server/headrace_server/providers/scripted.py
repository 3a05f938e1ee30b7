"""An Upstream that plays what it is told to, for tests of whatever stands above the providers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Fault, ProviderFault, ReplaySafety, Violation
from headrace_server.domain.events import Delta
from headrace_server.domain.limits import LimitType
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage

Step = Sequence[Delta] | Fault | float
"""What one `read` does: hand out deltas (none: a ping), raise a fault, or first wait so many seconds (then the next step follows)."""


@dataclass(slots=True, kw_only=True)
class Script:
    """One call from beginning to end. After the last step the answer is complete."""

    steps: Sequence[Step] = ()
    refused: Fault | None = None
    """Raised by `call` itself: refused connections, error statuses."""
    delay: float = 0
    """Seconds until the headers come, or `refused` is raised."""
    whole: bool = False
    model: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason = FinishReason.STOP
    native_finish_reason: str = "stop"
    provider_request_id: str = ""
    left: Mapping[LimitType, int] = field(default_factory=dict)


@dataclass(slots=True)
class ScriptedCall:
    """A call that plays a script, and remembers what was asked of it."""

    request: GenerateRequest
    provider: Provider
    model: str
    traceparent: str
    connect_timeout: float
    script: Script
    answer: Answer = field(default_factory=Answer)
    sent: bool = False
    whole: bool = False
    left: Mapping[LimitType, int] = field(default_factory=dict)
    closed: bool = False
    complete: bool = False
    _played: int = 0

    async def read(self) -> list[Delta] | None:
        """Play the next step; see ports.Call."""
        while self._played < len(self.script.steps):
            step = self.script.steps[self._played]
            self._played += 1
            match step:
                case Fault():
                    raise ProviderFault(step)
                case float() | int():
                    await asyncio.sleep(step)
                case _:
                    await asyncio.sleep(0)
                    for delta in step:
                        self.answer.add(delta)
                    return list(step)
        await asyncio.sleep(0)
        self.answer.usage = self.script.usage
        self.answer.finish_reason = self.script.finish_reason
        self.answer.native_finish_reason = self.script.native_finish_reason
        self.complete = True
        return None

    async def close(self) -> None:
        """Remember that the call was closed."""
        self.closed = True


class ScriptedUpstream:
    """Plays one script after the other, whoever is called; or, where a provider's name has scripts of its own, those.

    `calls` holds the calls in the order they were made, also those that were refused. A call beyond the last script is an error of the
    test's.
    """

    def __init__(
        self, scripts: Iterable[Script] = (), *, by_provider: dict[str, list[Script]] | None = None, violations: Sequence[Violation] = ()
    ) -> None:
        self.calls: list[ScriptedCall] = []
        self._scripts = list(scripts)
        self._by_provider = {name: list(of_provider) for name, of_provider in (by_provider or {}).items()}
        self._violations = violations

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """The violations that it was made with."""
        return self._violations

    async def call(
        self,
        request: GenerateRequest,
        provider: Provider,
        model: str,
        *,
        traceparent: str,
        connect_timeout: float,
        begins: Callable[[], None] | None = None,
    ) -> ScriptedCall:
        """Begin the next script; see ports.Upstream."""
        scripts = self._by_provider.get(provider.provider, self._scripts)
        assert scripts, f"call {len(self.calls) + 1}, of {provider.provider}, has no script"
        script = scripts.pop(0)
        call = ScriptedCall(request, provider, model, traceparent, connect_timeout, script, whole=script.whole, left=script.left)
        self.calls.append(call)
        call.answer.model = script.model or model
        call.answer.provider_request_id = script.provider_request_id
        if begins is not None and (script.refused is None or script.refused.replay_safety is not ReplaySafety.NOT_SENT):
            begins()
        await asyncio.sleep(script.delay)
        if script.refused is not None:
            call.sent = script.refused.replay_safety is not ReplaySafety.NOT_SENT
            raise ProviderFault(script.refused)
        call.sent = True
        return call
