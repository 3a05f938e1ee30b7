from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import result_pb2 as pb
from headrace.v1 import usage_pb2
from headrace_server.domain.errors import ErrorCode, RateLimitInfo, Refusal
from headrace_server.domain.lifecycle import State
from headrace_server.domain.message import ProviderDataPart, TextPart, ToolCallPart
from headrace_server.domain.result import Attempt, GenerationResult, ProviderError
from headrace_server.domain.usage import Usage
from headrace_server.rpc.codec_result import (
    decode_attempt,
    decode_error,
    decode_result,
    decode_usage,
    encode_attempt,
    encode_error,
    encode_result,
    encode_usage,
)


@pytest.mark.parametrize(
    ("kind", "encode", "decode"),
    [
        ("results", encode_result, decode_result),
        ("errors", encode_error, decode_error),
        ("attempts", encode_attempt, decode_attempt),
        ("usages", encode_usage, decode_usage),
    ],
)
@given(data=st.data())
def test_the_end_of_a_generation_survives_the_wire_unchanged(
    data: st.DataObject, generated: SimpleNamespace, kind: str, encode: Any, decode: Any
) -> None:
    value = data.draw(getattr(generated, kind))
    message = encode(value)
    assert decode(type(message).FromString(message.SerializeToString())) == value


@pytest.mark.parametrize(
    ("message_class", "encode", "decode"),
    [
        (pb.GenerationResult, encode_result, decode_result),
        (pb.ProviderError, encode_error, decode_error),
        (pb.Attempt, encode_attempt, decode_attempt),
        (usage_pb2.Usage, encode_usage, decode_usage),
    ],
)
@given(data=st.data())
def test_any_message_is_read_or_refused(
    data: st.DataObject, generated: SimpleNamespace, message_class: Any, encode: Any, decode: Any
) -> None:
    fields = data.draw(generated.messages_of(message_class.DESCRIPTOR))
    message = message_class.FromString(message_class(**fields).SerializeToString())
    value = refused = None
    try:
        value = decode(message)
    except Refusal as refusal:
        refused = refusal.fault
    if refused is None:
        # Times are kept to the millisecond, so what was read is compared, not the message.
        assert decode(encode(value)) == value
    else:
        assert refused.violations
        assert all(v.field and v.description for v in refused.violations)


def test_the_error_of_an_attempt_carries_neither_attempts_nor_partial() -> None:
    inner = ProviderError(code=ErrorCode.TIMEOUT, partial=GenerationResult())
    inner = inner.model_copy(update={"attempts": (Attempt(provider="p", model="m", state=State.FAILED, start_time=1),)})
    message = encode_attempt(Attempt(provider="p", model="m", state=State.FAILED, start_time=1, error=inner))
    assert message.error.code
    assert not message.error.attempts
    assert not message.error.HasField("partial")


def test_an_attempt_whose_error_carries_attempts_is_refused_by_path() -> None:
    message = pb.ProviderError(code=5, attempts=[{"state": 8, "start_time": {}, "error": {"code": 5, "attempts": [{}], "partial": {}}}])
    with pytest.raises(Refusal) as caught:
        decode_error(message)
    assert [v.field for v in caught.value.fault.violations] == ["attempts[0].error.attempts", "attempts[0].error.partial"]


def test_what_protobuf_cannot_hold_is_clamped_or_mended() -> None:
    result = GenerationResult.model_construct(
        content=(
            TextPart.model_construct(text="half \ud83d"),
            ToolCallPart.model_construct(name="", arguments_json="\ude00"),
            ProviderDataPart.model_construct(provider_data={"a\ud83d": ["\ud83d\ude00", 10**30]}),
        ),
        usage=Usage(input_tokens=10**12),
        cost=10**30,
        model="\ud83d",
    )
    message = pb.GenerationResult.FromString(encode_result(result).SerializeToString())
    assert message.content[0].text == "half \ufffd"
    assert message.content[1].tool_call.arguments_json == "\ufffd"
    assert message.content[2].provider_data.fields["a\ufffd"].list_value.values[0].string_value == "😀"
    assert message.usage.input_tokens == 2**31 - 1
    assert message.cost == 2**63 - 1
    limits = RateLimitInfo(limit=10**30, remaining=-(10**30), retry_after=10**30, reset_time=10**30)
    error = encode_error(ProviderError(code=ErrorCode.RATE_LIMIT_EXCEEDED, rate_limit=limits))
    assert error.rate_limit.limit == 2**63 - 1
    assert error.rate_limit.remaining == -(2**63)
