"""From a service's descriptor to gRPC handlers: bytes are read and written here, so that a broken message gets our own status and text.

A servicer has one method for each RPC, named as in the proto file; without one of them the service does not start.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from headrace_server.rpc.status import BrokenMessage

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def service_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """All RPCs of a service."""
    return grpc.method_handlers_generic_handler(
        service.full_name, {method.name: _method_handler(method, getattr(servicer, method.name)) for method in service.methods}
    )


def reader(message_class: type[Message]) -> Callable[[bytes], Any]:
    """A parser that raises BrokenMessage."""

    def read(raw: bytes) -> Message:
        try:
            return message_class.FromString(raw)
        except DecodeError:
            raise BrokenMessage(message_class.DESCRIPTOR.full_name) from None

    return read


def _method_handler(method: MethodDescriptor, implementation: Callable[..., Any]) -> "grpc.RpcMethodHandler[Any, Any]":
    read = reader(GetMessageClass(method.input_type))
    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(_both_streams(read, implementation))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_server_stream(read, implementation))
    return grpc.unary_unary_rpc_method_handler(_unary(read, implementation))


def _unary(read: Callable[[bytes], Message], implementation: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(raw: bytes, context: Context) -> bytes:
        response: Message = await implementation(read(raw), context)
        return response.SerializeToString()

    return handle


def _server_stream(read: Callable[[bytes], Message], implementation: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(raw: bytes, context: Context) -> None:
        await implementation(read(raw), context)

    return handle


def _both_streams(read: Callable[[bytes], Message], implementation: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(raw_requests: AsyncIterator[bytes], context: Context) -> None:
        await implementation(_each(read, raw_requests), context)

    return handle


async def _each(read: Callable[[bytes], Message], raw_requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    """The messages of a stream. Nothing is begun before the first one is asked for: gRPC complains of a begun stream that nobody read."""
    async for raw in raw_requests:
        yield read(raw)
