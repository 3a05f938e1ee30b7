"""The one interceptor: whatever a handler raises, the caller gets a status of ours and never an exception's text."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import Any, TypeAlias

import grpc

from headrace_server.domain import refusals
from headrace_server.domain.errors import HeadraceError
from headrace_server.ledger import provider_error
from headrace_server.rpc.methods import Context
from headrace_server.rpc.status import BrokenMessage, abort, end

log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server, those of health and reflection too."""

    def __init__(self) -> None:
        # One wrapper for all calls of a method: it stays in memory as long as its call does.
        self._guarded = lru_cache(maxsize=256)(_guarded_handler)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]], handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self._guarded(handler)


def _guarded_handler(handler: "Handler") -> "Handler":
    if handler.response_streaming:
        factory = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        return factory(_guarded_stream(behaviour), handler.request_deserializer, handler.response_serializer)
    factory = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    return factory(_guarded(behaviour), handler.request_deserializer, handler.response_serializer)


def _guarded(behaviour: Any) -> Any:
    async def handle(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except BaseException as error:
            if _says_enough(error, context):
                raise
            await _end(error, context)

    return handle


def _guarded_stream(behaviour: Any) -> Any:
    async def handle(request: Any, context: Context) -> None:
        try:
            responses = behaviour(request, context)
            if isinstance(responses, AsyncIterator):
                async for response in responses:
                    await context.write(response)
            else:
                await responses
        except BaseException as error:
            if _says_enough(error, context):
                raise
            await _end(error, context)

    return handle


def _says_enough(error: BaseException, context: Context) -> bool:
    """Whether the RPC ends with this error as it is: it has its status already, or there is nobody to tell one."""
    match error:
        case grpc.aio.AbortError() | KeyboardInterrupt() | SystemExit() | GeneratorExit():
            return True
        case asyncio.CancelledError():
            return context.cancelled() or _is_being_cancelled()  # the caller left, or its time is over
    return False


async def _end(error: BaseException, context: Context) -> None:
    """End the RPC with the status that belongs to what was raised."""
    if isinstance(error, grpc.aio.InternalError):
        raise asyncio.CancelledError from None  # as gRPC says it of a write that came too late: the caller has left
    try:
        await _tell(error, context)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # it left meanwhile


async def _tell(error: BaseException, context: Context) -> None:
    match error:
        case BrokenMessage():
            await end(context, grpc.StatusCode.INTERNAL, str(error))
        case HeadraceError():
            await abort(context, provider_error(error.fault, request_id=error.request_id))
        case _:
            incident = secrets.token_hex(8)
            log.error("internal error", exc_info=error, extra={"incident": incident})
            await abort(context, provider_error(refusals.internal(incident), request_id=""))


def _is_being_cancelled() -> bool:
    """Whether this task was cancelled from outside, as against a library that raised CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
