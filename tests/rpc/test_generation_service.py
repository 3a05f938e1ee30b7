"""GenerationService through async stubs, over real sockets, from the caller to the provider and back."""

import asyncio
import uuid

import grpc
import pytest
from google.protobuf import duration_pb2

from headrace.v1 import error_pb2, lifecycle_pb2, message_pb2, request_pb2, request_service_pb2, result_pb2
from headrace.v1 import generation_service_pb2 as pb
from headrace_server.fake_provider import Break, Fate, Step
from support.service import Generate, command, details, events_of, kinds, request, said, service, text_of


async def test_generate_answers_whole(tmp_path):
    async with service(tmp_path, [Step(text="Hello, world")]) as s:
        wanted = request()
        response = await s.generation.Generate(wanted)

        assert response.request_id == wanted.request_id
        assert [part.text for part in response.result.content] == ["Hello, world"]
        assert response.result.finish_reason == result_pb2.FINISH_REASON_STOP
        assert response.result.usage.total_tokens > 0
        assert response.result.provider == "fake"
        assert "stream" not in s.provider.requests[0].json


async def test_generate_makes_an_id_where_there_is_none(tmp_path):
    async with service(tmp_path, [Step(text="hi")]) as s:
        response = await s.generation.Generate(request(request_id=""))

        assert uuid.UUID(response.request_id).version == 7


async def test_initial_metadata_names_the_request_and_its_trace(tmp_path):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with service(tmp_path, [Step(text="hi")]) as s:
        wanted = request()
        call = s.generation.Generate(wanted, metadata=(("traceparent", parent),))
        metadata = dict(await call.initial_metadata())
        await call

        assert metadata["x-request-id"] == wanted.request_id
        assert metadata["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert s.provider.requests[0].headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")


async def test_a_stream_has_its_headers_before_anything_is_sent(tmp_path):
    async with service(tmp_path) as s:
        call = s.generation.StreamGenerate()
        async with asyncio.timeout(10):
            await call.initial_metadata()
        call.cancel()


async def test_a_stream_has_its_headers_while_there_is_nothing_to_tell(tmp_path):
    async with service(tmp_path, [Step(text="one two three four", fault=Break(kind="stall", after_events=3))]) as s:
        wanted = request(on_disconnect=request_pb2.DISCONNECT_POLICY_KEEP)
        first = s.generation.StreamGenerate(iter([command(wanted)]))
        async for response in first:
            if chunks := [event.chunk for event in response.events if event.HasField("chunk")]:
                break

        second = s.generation.StreamGenerate()
        resume = pb.ResumeCommand(request_id=wanted.request_id, next_index=chunks[-1].index + 1)
        await second.write(pb.StreamGenerateRequest(resume=resume))
        async with asyncio.timeout(10):
            await second.initial_metadata()
        for call in (first, second):
            call.cancel()
        await s.requests.CancelRequest(request_service_pb2.CancelRequestRequest(request_id=wanted.request_id))


async def test_stream_generate_tells_states_chunks_and_the_result(tmp_path):
    async with service(tmp_path, [Step(text="one two three")]) as s:
        events = await events_of(s.generation.StreamGenerate(iter([command(request())])))

        assert kinds(events)[:3] == ["transition", "transition", "transition"]
        assert [e.transition.to_state for e in events if e.WhichOneof("event") == "transition"] == [
            lifecycle_pb2.REQUEST_STATE_VALIDATING,
            lifecycle_pb2.REQUEST_STATE_REQUESTING,
            lifecycle_pb2.REQUEST_STATE_STREAMING,
            lifecycle_pb2.REQUEST_STATE_COMPLETED,
        ]
        assert kinds(events)[-1] == "completed"
        assert text_of(events) == events[-1].completed.content[0].text == "one two three"
        chunks = [e.chunk for e in events if e.WhichOneof("event") == "chunk"]
        assert [c.index for c in chunks] == list(range(len(chunks)))


async def test_quiet_and_timing_are_heeded(tmp_path):
    async with service(tmp_path, [Step(text="one two")]) as s:
        events = await events_of(s.generation.StreamGenerate(iter([command(request(quiet=True, timing=True))])))

        assert set(kinds(events)) == {"chunk", "completed"}
        first = events[0].chunk
        assert first.timing.received.seconds > 1_700_000_000
        assert first.timing.sent.ToNanoseconds() >= first.timing.received.ToNanoseconds()


async def test_several_generations_run_on_one_stream(tmp_path):
    async with service(tmp_path) as s:
        wanted = [request(f"number {i}", model="n8-d5") for i in range(5)]
        events = await events_of(s.generation.StreamGenerate(iter(map(command, wanted))))

        for one in wanted:
            own = [e for e in events if e.request_id == one.request_id]
            assert kinds(own)[-1] == "completed"
            assert kinds(own).count("completed") == 1
            assert text_of(own) == own[-1].completed.content[0].text
        first_end = kinds(events).index("completed")
        assert {e.request_id for e in events[:first_end]} == {one.request_id for one in wanted}


async def test_a_stream_with_one_failed_generation_ends_with_its_status(tmp_path):
    async with service(tmp_path, [Step(status=500, body={"error": {"message": "sorry", "type": "server_error"}})]) as s:
        call = s.generation.StreamGenerate(iter([command(request())]))
        events = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for response in call:
                events += response.events

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert kinds(events)[-1] == "failed"
        assert events[-1].failed.http_status == 500
        told = details(caught.value)
        assert told["ErrorInfo"].domain == "headrace.dev"
        assert told["ErrorInfo"].reason == "SERVER_ERROR"
        assert told["ProviderError"].code == error_pb2.ERROR_CODE_SERVER_ERROR


async def test_a_stream_with_several_generations_ends_ok_whatever_became_of_them(tmp_path):
    async with service(tmp_path, [Step(status=500), Step(text="fine")]) as s:
        wanted = [request("a"), request("b")]
        events = await events_of(s.generation.StreamGenerate(iter(map(command, wanted))))

        assert sorted(kind for kind in kinds(events) if kind in ("completed", "failed")) == ["completed", "failed"]


async def test_cancel_on_the_stream_ends_one_generation_and_closes_its_call(tmp_path):
    async with service(tmp_path) as s:
        kept, dropped = request("a", model="n6-d20"), request("b", model="n500-d20")
        call = s.generation.StreamGenerate()
        await call.write(command(kept))
        await call.write(command(dropped))
        events = []
        async for response in call:
            events += response.events
            chunks = {e.request_id for e in events if e.WhichOneof("event") == "chunk"}
            if dropped.request_id in chunks and not call.done():
                await call.write(Generate(cancel=pb.CancelCommand(request_id=dropped.request_id)))
                await call.done_writing()
                break
        events += await events_of(call)

        failed = next(e.failed for e in events if e.WhichOneof("event") == "failed")
        assert failed.request_id == dropped.request_id
        assert failed.code == error_pb2.ERROR_CODE_CANCELLED
        assert failed.partial.content[0].text
        assert [e.request_id for e in events if e.WhichOneof("event") == "completed"] == [kept.request_id]
        upstream = next(r for r in s.provider.requests if r.json["model"] == "n500-d20")
        await asyncio.wait_for(upstream.ended.wait(), 1)
        assert upstream.fate is Fate.CALLER_LEFT


async def test_a_command_for_an_unknown_generation_does_not_end_the_stream(tmp_path):
    async with service(tmp_path, [Step(text="fine")]) as s:
        nobody = str(uuid.uuid4())
        commands = [Generate(cancel=pb.CancelCommand(request_id=nobody)), command(request())]
        events = await events_of(s.generation.StreamGenerate(iter(commands)))

        failed = next(e for e in events if e.WhichOneof("event") == "failed")
        assert (failed.request_id, failed.failed.subreason) == (nobody, "REQUEST_NOT_FOUND")
        assert "completed" in kinds(events)


async def test_more_generations_than_allowed_are_refused_one_by_one(tmp_path):
    async with service(tmp_path, max_in_flight_per_stream=2) as s:
        wanted = [request(str(i), model="n3-d20") for i in range(3)]
        events = await events_of(s.generation.StreamGenerate(iter(map(command, wanted))))

        failed = [e for e in events if e.WhichOneof("event") == "failed"]
        assert [(e.request_id, e.failed.subreason) for e in failed] == [(wanted[2].request_id, "TOO_MANY_IN_FLIGHT")]
        assert kinds(events).count("completed") == 2


async def test_a_caller_that_hangs_up_cancels_its_generation(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n500-d10")
        call = s.generation.StreamGenerate(iter([command(wanted)]))
        async for response in call:
            if "chunk" in kinds(response.events):
                break
        call.cancel()

        upstream = s.provider.requests[0]
        await asyncio.wait_for(upstream.ended.wait(), 1)
        assert upstream.fate is Fate.CALLER_LEFT
        record = await _record(s, wanted.request_id)
        assert record.error_code == error_pb2.ERROR_CODE_CANCELLED
        assert record.response_data.content[0].text


async def test_the_deadline_reaches_the_provider_and_the_record(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n500-d10")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events_of(s.generation.StreamGenerate(iter([command(wanted)]), timeout=0.3))

        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(s.provider.requests[0].ended.wait(), 1)
        assert (await _record(s, wanted.request_id)).error_code == error_pb2.ERROR_CODE_TIMEOUT


async def test_a_cut_stream_is_no_success(tmp_path):
    async with service(tmp_path, [Step(text="one two three four", fault=Break(kind="cut", after_events=3))]) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events_of(s.generation.StreamGenerate(iter([command(request())])))

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "STREAM_TRUNCATED"


async def test_retry_and_fallback_are_told_in_the_stream(tmp_path):
    async with service(tmp_path, [Step(status=500), Step(status=500), Step(text="at last")]) as s:
        wanted = request(
            retry=request_pb2.RetryConfig(max_attempts=2, initial_delay=duration_pb2.Duration(nanos=1_000_000)),
            fallback=request_pb2.FallbackConfig(providers=["claude-fake"]),
        )
        events = await events_of(s.generation.StreamGenerate(iter([command(wanted)])))

        states = [lifecycle_pb2.RequestState.Name(e.transition.to_state)[14:] for e in events if e.WhichOneof("event") == "transition"]
        assert states == ["VALIDATING", "REQUESTING", "RETRYING", "REQUESTING", "VALIDATING", "REQUESTING", "STREAMING", "COMPLETED"]
        result = events[-1].completed
        assert result.fallback.provider == "claude-fake"
        assert [a.provider for a in result.attempts] == ["fake", "fake", "claude-fake"]
        assert result.content[0].text == "at last"


async def test_submit_answers_at_once_and_attach_reads_the_answer(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n5-d20")
        submitted = await s.generation.SubmitGeneration(pb.SubmitGenerationRequest(request=wanted), timeout=0.5)
        assert submitted.request_id == wanted.request_id
        assert submitted.state in (lifecycle_pb2.REQUEST_STATE_REQUESTING, lifecycle_pb2.REQUEST_STATE_STREAMING)

        live = await events_of(s.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id)))
        again = await events_of(s.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id)))
        rest = await events_of(s.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id, next_index=2)))

        assert live == again
        chunks = [e for e in live if e.WhichOneof("event") == "chunk"]
        assert [e for e in rest if e.WhichOneof("event") == "chunk"] == chunks[2:]
        assert rest[-1] == live[-1]


async def test_resume_on_a_stream_gives_the_chunks_that_are_missing(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n10-d10", on_disconnect=request_pb2.DISCONNECT_POLICY_KEEP)
        call = s.generation.StreamGenerate(iter([command(wanted)]))
        had = []
        async for response in call:
            had += [e.chunk for e in response.events if e.WhichOneof("event") == "chunk"]
            if len(had) >= 3:
                break
        call.cancel()
        resume = Generate(resume=pb.ResumeCommand(request_id=wanted.request_id, next_index=len(had)))
        events = await events_of(s.generation.StreamGenerate(iter([resume])))

        rest = [e.chunk for e in events if e.WhichOneof("event") == "chunk"]
        assert [c.index for c in had + rest] == list(range(len(had) + len(rest)))
        assert "".join(c.text for c in had + rest) == events[-1].completed.content[0].text


async def test_a_repeated_id_is_answered_from_the_first_one(tmp_path):
    async with service(tmp_path, [Step(text="only once")], replay_window=0) as s:
        wanted = request()
        first = await s.generation.Generate(wanted)
        await asyncio.sleep(0.02)
        second = await s.generation.Generate(wanted)

        assert first == second
        assert len(s.provider.requests) == 1


async def test_a_repeated_id_with_other_content_already_exists(tmp_path):
    async with service(tmp_path, [Step(text="only once")]) as s:
        wanted = request("one thing")
        await s.generation.Generate(wanted)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request("another", request_id=wanted.request_id))

        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


# ---------------------------------------------------------------- bad input


def bad(**fields):
    wanted = request()
    for name, value in fields.items():
        if isinstance(value, list):
            wanted.ClearField(name)
            getattr(wanted, name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(wanted, name).CopyFrom(value)
        else:
            setattr(wanted, name, value)
    return wanted


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (bad(messages=[]), "messages"),
        (bad(messages=[said("x", 17)]), "messages[0].role"),
        (bad(messages=[message_pb2.ChatMessage(role=1, content=[message_pb2.ContentPart()])]), "messages[0].content[0]"),
        (bad(messages=[said("x\0y")]), "messages[0].content[0].text"),
        (bad(messages=[said("x")] * 10_000), "messages"),
        (bad(temperature=3), "temperature"),
        (bad(temperature=float("nan")), "temperature"),
        (bad(max_tokens=0), "max_tokens"),
        (bad(model=" "), "model"),
        (bad(tools=[request_pb2.Tool(name="t")]), "tools[0].parameters_json"),
        (bad(tools=[request_pb2.Tool(name="t", parameters_json="{}")] * 2), "tools[1].name"),
        (bad(request_id="not-a-uuid"), "request_id"),
    ],
)
async def test_a_wrong_field_is_named_and_leaves_a_row(tmp_path, wanted, field):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(wanted)

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        told = details(caught.value)
        assert field in [v.field for v in told["BadRequest"].field_violations]
        record = await _record(s, told["ErrorInfo"].metadata["request_id"])
        assert record.state == lifecycle_pb2.REQUEST_STATE_FAILED
        assert record.error_code == error_pb2.ERROR_CODE_INVALID_REQUEST
        assert not record.attempts
        assert s.provider.requests == []


async def test_a_malformed_id_on_a_stream_is_answered_under_that_id_and_recorded_under_another(tmp_path):
    async with service(tmp_path, [Step(text="hi")]) as s:
        good = request()
        events = await events_of(s.generation.StreamGenerate(iter(map(command, [bad(request_id="not-a-uuid"), good]))))

        (refused,) = [event for event in events if event.request_id != good.request_id]
        assert refused.request_id == "not-a-uuid"
        assert [violation.field for violation in refused.failed.field_violations] == ["request_id"]
        record = await _record(s, refused.failed.request_id)
        assert record.error_code == error_pb2.ERROR_CODE_INVALID_REQUEST


async def test_an_id_in_upper_case_is_cancelled_and_resumed_as_well(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n500-d20")
        call = s.generation.StreamGenerate()
        await call.write(command(wanted))
        events = []
        async for response in call:
            events += response.events
            if "chunk" in kinds(events):
                break
        await call.write(Generate(resume=pb.ResumeCommand(request_id=wanted.request_id.upper())))
        await call.write(Generate(cancel=pb.CancelCommand(request_id=wanted.request_id.upper())))
        await call.done_writing()
        again = []
        with pytest.raises(grpc.aio.AioRpcError):
            async for response in call:
                again += response.events

        assert {event.request_id for event in again} == {wanted.request_id}
        assert again[-1].failed.code == error_pb2.ERROR_CODE_CANCELLED
        assert kinds(again).count("failed") == 1


async def test_every_wrong_field_is_named_at_once(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(bad(messages=[], temperature=3, max_tokens=-1, request_id="x"))

        fields = {v.field for v in details(caught.value)["BadRequest"].field_violations}
        assert fields == {"messages", "temperature", "max_tokens", "request_id"}


async def test_an_unknown_provider_is_not_found(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request(provider="nobody"))

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "'nobody'" in caught.value.details()


async def test_an_unknown_model_is_not_found(tmp_path):
    body = {"error": {"message": "The model `m` does not exist", "type": "invalid_request_error", "param": None, "code": "model_not_found"}}
    async with service(tmp_path, [Step(status=404, body=body)]) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request(model="m"))

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert details(caught.value)["ResourceInfo"].resource_name == "m"


async def test_a_provider_without_a_key_is_a_failed_precondition(tmp_path, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request(provider="openai"))

        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "has no API key" in caught.value.details()


async def test_a_message_over_the_limit_is_refused(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request("x" * 5_000_000))

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x12\x03\xff\xfe\xfd"])
async def test_a_broken_message_gets_our_own_words(tmp_path, raw):
    async with service(tmp_path) as s:
        call = s.channel.unary_unary("/headrace.v1.GenerationService/Generate")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(raw)

        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "headrace.v1.GenerateRequest" in caught.value.details()


async def test_the_key_of_a_provider_is_told_nowhere(tmp_path):
    echo = {
        "error": {
            "message": "Incorrect API key provided: sk-canary-0123456789.",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
        }
    }
    async with service(tmp_path, [Step(status=401, body=echo)]) as s:
        wanted = request()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(wanted)

        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        told = f"{caught.value} {caught.value.trailing_metadata()} {await _record(s, wanted.request_id)}"
        assert "sk-canary" not in told
    for file in tmp_path.iterdir():
        assert b"sk-canary" not in file.read_bytes()


async def _record(s, request_id):
    """The record, once the request has ended."""
    async for _ in s.requests.WatchRequest(request_service_pb2.WatchRequestRequest(request_id=request_id)):
        pass
    return (await s.requests.GetRequest(request_service_pb2.GetRequestRequest(request_id=request_id))).request
