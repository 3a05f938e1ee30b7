from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import event_pb2 as pb
from headrace.v1 import generation_service_pb2
from headrace_server.domain.errors import Refusal
from headrace_server.domain.events import ReasoningDelta, RefusalDelta, StreamChunk, TextDelta, ToolCallDelta
from headrace_server.domain.result import FinishReason
from headrace_server.rpc.codec_event import decode_event, encode_event, write_event

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@given(data=st.data())
def test_an_event_survives_the_wire_unchanged(data: st.DataObject, generated: SimpleNamespace) -> None:
    event = data.draw(generated.events)
    message = pb.GenerationEvent.FromString(encode_event(ID, event).SerializeToString())
    assert message.request_id == ID
    assert decode_event(message) == event


@given(data=st.data())
def test_any_event_message_is_read_or_refused(data: st.DataObject, generated: SimpleNamespace) -> None:
    fields = data.draw(generated.messages_of(pb.GenerationEvent.DESCRIPTOR))
    message = pb.GenerationEvent.FromString(pb.GenerationEvent(**fields).SerializeToString())
    event = refused = None
    try:
        event = decode_event(message)
    except Refusal as refusal:
        refused = refusal.fault
    if refused is not None:
        assert refused.violations
        assert all(v.field and v.description for v in refused.violations)
    elif event is None:
        assert message.WhichOneof("event") is None
    else:
        assert decode_event(encode_event(ID, event, sent=1)) == event


def test_events_written_into_one_response_stay_apart_and_in_order() -> None:
    response = generation_service_pb2.StreamGenerateResponse()
    chunks = [StreamChunk(index=i, delta=TextDelta(f"t{i}"), attempt=1) for i in range(3)]
    for chunk in chunks:
        write_event(response.events.add(), ID, chunk)
    parsed = generation_service_pb2.StreamGenerateResponse.FromString(response.SerializeToString())
    assert [decode_event(event) for event in parsed.events] == chunks


def test_a_chunk_tells_its_times_only_when_asked_for() -> None:
    chunk = StreamChunk(index=0, delta=TextDelta("x"), attempt=1, received=1_700_000_000_123)
    assert not encode_event(ID, chunk).chunk.HasField("timing")
    timing = encode_event(ID, chunk, sent=1_700_000_000_456).chunk.timing
    assert timing.received.ToMilliseconds() == 1_700_000_000_123
    assert timing.sent.ToMilliseconds() == 1_700_000_000_456
    decoded = decode_event(encode_event(ID, chunk, sent=1))
    assert decoded == chunk


def test_a_chunk_that_only_ends_the_answer_has_no_delta() -> None:
    message = encode_event(ID, StreamChunk(index=3, delta=None, attempt=2, finish_reason=FinishReason.LENGTH, merged=0))
    assert message.chunk.WhichOneof("delta") is None
    assert message.chunk.finish_reason == 2


def test_a_chunk_of_an_empty_text_still_is_a_text() -> None:
    assert encode_event(ID, StreamChunk(index=0, delta=TextDelta(""), attempt=1)).chunk.WhichOneof("delta") == "text"
    assert encode_event(ID, StreamChunk(index=0, delta=ReasoningDelta(), attempt=1)).chunk.WhichOneof("delta") == "reasoning"


@pytest.mark.parametrize(
    "delta",
    [
        TextDelta("a\ud83d"),
        RefusalDelta("a\ud83d"),
        ReasoningDelta(text="a\ud83d"),
        ToolCallDelta(position=0, arguments_delta="a\ud83d"),
    ],
)
def test_half_a_surrogate_pair_does_not_break_the_stream(delta: TextDelta) -> None:
    message = encode_event(ID, StreamChunk(index=7, delta=delta, attempt=1))
    assert message.chunk.index == 7
    assert b"a\xef\xbf\xbd" in message.SerializeToString()


def test_an_unknown_arm_is_passed_over() -> None:
    # Field 99 of a newer server.
    assert decode_event(pb.GenerationEvent.FromString(b"\x0a\x01x\x9a\x06\x00")) is None
