"""RequestService over real sockets."""

import asyncio
import uuid

import grpc
import pytest
from google.protobuf import timestamp_pb2

from headrace.v1 import error_pb2, lifecycle_pb2, request_pb2
from headrace.v1 import request_service_pb2 as pb
from headrace_server.fake_provider import Step
from support.service import details, request, service


async def test_a_record_shows_what_was_asked_and_answered(tmp_path):
    async with service(tmp_path, [Step(text="the answer")]) as s:
        metadata = request_pb2.RequestMetadata(user_id="u", conversation_id=str(uuid.uuid4()), tags=["a", "b"])
        wanted = request(metadata=metadata)
        await s.generation.Generate(wanted)

        record = (await s.requests.GetRequest(pb.GetRequestRequest(request_id=wanted.request_id))).request

        assert record.request_data == wanted
        assert record.response_data.content[0].text == "the answer"
        assert (record.user_id, record.conversation_id, list(record.tags)) == ("u", metadata.conversation_id, ["a", "b"])
        assert len(record.trace_id) == 32
        assert record.node
        assert record.duration.ToMilliseconds() == record.end_time.ToMilliseconds() - record.start_time.ToMilliseconds()
        assert [lifecycle_pb2.LifecycleEvent.Name(t.event)[16:] for t in record.transitions] == [
            "INITIATE_REQUEST",
            "VALIDATION_PASSED",
            "RECEIVE_RESPONSE",
        ]


@pytest.mark.parametrize("rpc", ["GetRequest", "CancelRequest"])
async def test_an_unknown_request_is_not_found(tmp_path, rpc):
    async with service(tmp_path) as s:
        message = getattr(pb, f"{rpc}Request")(request_id=str(uuid.uuid4()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(s.requests, rpc)(message)

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_id_that_is_no_uuid_is_named(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.requests.GetRequest(pb.GetRequestRequest(request_id="x"))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in details(caught.value)["BadRequest"].field_violations] == ["request_id"]


async def test_lists_are_newest_first_and_pages_lack_and_repeat_nothing(tmp_path):
    async with service(tmp_path) as s:
        made = [(await s.generation.Generate(request(str(number)))).request_id for number in range(7)]
        seen, token = [], ""
        while True:
            page = await s.requests.ListRequests(pb.ListRequestsRequest(page_size=3, page_token=token))
            seen += [r.request_id for r in page.requests]
            await s.generation.Generate(request("in between"))
            if not (token := page.next_page_token):
                break

        assert seen == made[::-1]


async def test_filters_must_all_hold(tmp_path):
    async with service(tmp_path, [Step(text="a"), Step(status=500), Step(text="c")]) as s:
        tagged = request(metadata=request_pb2.RequestMetadata(user_id="u", tags=["x"]))
        await s.generation.Generate(tagged)
        failing = request()
        with pytest.raises(grpc.aio.AioRpcError):
            await s.generation.Generate(failing)
        await s.generation.Generate(request())

        async def ids(**filters):
            return [r.request_id for r in (await s.requests.ListRequests(pb.ListRequestsRequest(**filters))).requests]

        assert await ids(tag="x") == [tagged.request_id]
        assert await ids(tag="x", user_id="nobody") == []
        assert await ids(state=lifecycle_pb2.REQUEST_STATE_FAILED) == [failing.request_id]
        assert await ids(error_code=error_pb2.ERROR_CODE_SERVER_ERROR) == [failing.request_id]
        assert len(await ids(provider="fake", model="echo")) == 3
        assert await ids(end_time=timestamp_pb2.Timestamp(seconds=1)) == []


async def test_a_page_token_of_another_list_is_refused(tmp_path):
    async with service(tmp_path) as s:
        for number in range(3):
            await s.generation.Generate(request(str(number)))
        page = await s.requests.ListRequests(pb.ListRequestsRequest(page_size=1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.requests.ListRequests(pb.ListRequestsRequest(page_size=1, page_token=page.next_page_token, provider="fake"))

        assert [v.field for v in details(caught.value)["BadRequest"].field_violations] == ["page_token"]


async def test_watching_tells_history_then_live_then_ends(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n8-d10")
        call = asyncio.ensure_future(s.generation.Generate(wanted))
        while s.app.engine.running(wanted.request_id) is None:
            await asyncio.sleep(0.001)
        watched = [r.transition async for r in s.requests.WatchRequest(pb.WatchRequestRequest(request_id=wanted.request_id))]
        await call
        again = [r.transition async for r in s.requests.WatchRequest(pb.WatchRequestRequest(request_id=wanted.request_id))]

        assert watched == again
        assert watched[-1].to_state == lifecycle_pb2.REQUEST_STATE_COMPLETED


async def test_a_watcher_that_leaves_ends_nothing(tmp_path):
    async with service(tmp_path) as s:
        wanted = request(model="n10-d10")
        call = asyncio.ensure_future(s.generation.Generate(wanted))
        while s.app.engine.running(wanted.request_id) is None:
            await asyncio.sleep(0.001)
        watch = s.requests.WatchRequest(pb.WatchRequestRequest(request_id=wanted.request_id))
        await watch.read()
        watch.cancel()

        assert (await call).result.content[0].text


async def test_cancelling_ends_a_running_request_and_leaves_an_ended_one(tmp_path):
    async with service(tmp_path, [Step(text="done"), Step(text="late", delay_ms=30_000)]) as s:
        ended = request()
        await s.generation.Generate(ended)
        running = request()
        call = s.generation.Generate(running)
        while s.app.engine.running(running.request_id) is None:
            await asyncio.sleep(0.001)

        cancelled = (await s.requests.CancelRequest(pb.CancelRequestRequest(request_id=running.request_id))).request
        kept = (await s.requests.CancelRequest(pb.CancelRequestRequest(request_id=ended.request_id))).request

        assert cancelled.error_code == error_pb2.ERROR_CODE_CANCELLED
        assert kept.state == lifecycle_pb2.REQUEST_STATE_COMPLETED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.CANCELLED
