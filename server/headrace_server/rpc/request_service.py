"""RequestService: the record of every request."""

from headrace.v1 import request_service_pb2 as pb
from headrace_server.domain.events import GenerationEvent
from headrace_server.domain.lifecycle import Transition
from headrace_server.domain.ports import Store
from headrace_server.engine import Engine
from headrace_server.rpc.codec_event import encode_transition
from headrace_server.rpc.codec_record import decode_list_requests, encode_list_requests, encode_record
from headrace_server.rpc.methods import Context
from headrace_server.rpc.unread import checked_uuid
from headrace_server.waker import Waker


class RequestServicer:
    """See request_service.proto."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:  # noqa: D102
        row = await self._engine.record(checked_uuid(request.request_id, "request_id"))
        return pb.GetRequestResponse(request=encode_record(row))

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:  # noqa: D102
        query = decode_list_requests(request)
        return await encode_list_requests(request, query, self._store.list_requests(query))

    async def WatchRequest(self, request: pb.WatchRequestRequest, context: Context) -> None:  # noqa: D102
        generation = await self._engine.find(checked_uuid(request.request_id, "request_id"))
        wakened = Waker()
        reader = generation.attach(0, wakened.wake, looks_on=True)
        try:
            while not reader.at_end:
                for event in reader.take():
                    await self._tell(event, context)
                if not reader.at_end:
                    await wakened.wait()
        finally:
            generation.detach(reader)

    @staticmethod
    async def _tell(event: GenerationEvent, context: Context) -> None:
        if isinstance(event, Transition):
            await context.write(pb.WatchRequestResponse(transition=encode_transition(event)).SerializeToString())

    async def CancelRequest(self, request: pb.CancelRequestRequest, context: Context) -> pb.CancelRequestResponse:  # noqa: D102
        row = await self._engine.cancel(checked_uuid(request.request_id, "request_id"))
        return pb.CancelRequestResponse(request=encode_record(row))
