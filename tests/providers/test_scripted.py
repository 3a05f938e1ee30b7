"""The fake is part of the package, and so it is tested like the rest."""

import time

import pytest

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety
from headrace_server.domain.events import TextDelta
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.ports import Upstream
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage
from headrace_server.providers.scripted import Script, ScriptedCall, ScriptedUpstream

REQUEST = GenerateRequest(
    request_id="01890a5d-ac96-774b-bcce-b302099a8057", messages=(ChatMessage(role=MessageRole.USER, content=(TextPart(text="hi"),)),)
)
FAULT = Fault(code=ErrorCode.SERVER_ERROR, message="oops")


def provider(name: str = "p") -> Provider:
    return Provider(
        id=REQUEST.request_id, provider=name, dialect=Dialect.OPENAI, api_url="http://x", default_model="m", created_at=0, updated_at=0
    )


async def call(upstream: ScriptedUpstream, name: str = "p") -> ScriptedCall:
    port: Upstream = upstream
    made = await port.call(REQUEST, provider(name), "m-2", traceparent="00-1-2-01", connect_timeout=3)
    assert isinstance(made, ScriptedCall)
    return made


async def test_script_is_played_to_its_end_when_nothing_fails() -> None:
    script = Script(steps=[[], [TextDelta("a"), TextDelta("b")], [TextDelta("c")]], usage=Usage(output_tokens=3), model="m-2-2026")
    upstream = ScriptedUpstream([script])
    made = await call(upstream)
    assert await made.read() == []
    assert await made.read() == [TextDelta("a"), TextDelta("b")]
    assert await made.read() == [TextDelta("c")]
    assert made.answer.finish_reason is None
    assert await made.read() is None
    await made.close()
    assert made.answer.content() == (TextPart(text="abc"),)
    assert (made.answer.finish_reason, made.answer.usage, made.answer.model) == (FinishReason.STOP, Usage(output_tokens=3), "m-2-2026")
    assert (made.sent, made.closed, made.complete) == (True, True, True)
    assert (made.model, made.traceparent, made.connect_timeout) == ("m-2", "00-1-2-01", 3)
    assert upstream.calls == [made]


async def test_fault_is_raised_when_the_script_comes_to_it() -> None:
    made = await call(ScriptedUpstream([Script(steps=[[TextDelta("a")], FAULT])]))
    await made.read()
    with pytest.raises(ProviderFault) as caught:
        await made.read()
    assert caught.value.fault is FAULT
    assert made.answer.content() == (TextPart(text="a"),)


@pytest.mark.parametrize(("safety", "sent"), [(ReplaySafety.NOT_SENT, False), (ReplaySafety.UNCERTAIN, True)])
async def test_call_is_recorded_when_it_is_refused(safety: ReplaySafety, sent: bool) -> None:
    upstream = ScriptedUpstream([Script(refused=Fault(code=ErrorCode.NETWORK_ERROR, message="no", replay_safety=safety)), Script()])
    with pytest.raises(ProviderFault):
        await call(upstream)
    assert [made.sent for made in upstream.calls] == [sent]
    assert await (await call(upstream)).read() is None


async def test_steps_wait_when_the_script_says_so() -> None:
    made = await call(ScriptedUpstream([Script(steps=[0.02, [TextDelta("late")]])]))
    begun = time.monotonic()
    assert await made.read() == [TextDelta("late")]
    assert time.monotonic() - begun >= 0.02


async def test_scripts_are_taken_by_name_when_a_provider_has_its_own() -> None:
    upstream = ScriptedUpstream([Script(model="any")], by_provider={"b": [Script(model="of-b")]})
    assert [(await call(upstream, name)).answer.model for name in ("b", "a")] == ["of-b", "any"]


async def test_test_is_told_when_there_is_no_script_left() -> None:
    with pytest.raises(AssertionError, match="call 1, of p, has no script"):
        await call(ScriptedUpstream([]))
