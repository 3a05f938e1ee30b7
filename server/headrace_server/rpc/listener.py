"""The gRPC server: its services, health, reflection, limits, and how it ends."""

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from headrace.v1 import analytics_service_pb2, generation_service_pb2, provider_service_pb2, request_service_pb2
from headrace_server.rpc.guard import Guard
from headrace_server.rpc.methods import service_handler

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (generation_service_pb2, "GenerationService"),
        (request_service_pb2, "RequestService"),
        (provider_service_pb2, "ProviderService"),
        (analytics_service_pb2, "AnalyticsService"),
    )
)
_HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

MAX_METADATA = 16 * 1024
"""Bytes of metadata that a call may bring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """How the server treats connections. Durations in seconds, sizes in bytes."""

    address: str
    reflection: bool = True
    max_receive_message_bytes: int = 4 * 1024 * 1024
    keepalive_time: float = 60
    keepalive_timeout: float = 20
    min_ping_interval: float = 30
    max_streams_per_connection: int = 100
    max_connection_age: float | None = None
    drain_timeout: float = 30


class Listener:
    """The server around the servicers, which are given by the names of their services."""

    def __init__(self, settings: ListenerSettings, servicers: dict[str, object]) -> None:
        self._settings = settings
        self._server = grpc.aio.server(interceptors=[Guard()], options=_options(settings))
        self._health = _Health()
        self._server.add_generic_rpc_handlers([service_handler(service, servicers.get(service.name, object())) for service in SERVICES])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = [*(service.full_name for service in SERVICES), _HEALTH.full_name, _REFLECTION.full_name]
            _add_reflection(names, self._server)

    async def start(self) -> int:
        """Listen; the port. Raises OSError where the address is not to be had."""
        try:
            port = self._server.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        await self.set_serving(True)
        return port

    async def set_serving(self, serving: bool) -> None:
        """What health says of every service, and of the whole."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *(service.full_name for service in SERVICES)):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Take no new RPC, and end those that are left after `grace` seconds."""
        await self._server.stop(grace)


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """The health service, with `List`, which the package leaves out."""

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:
        """The status of every service."""
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        )


def _add_reflection(names: list[str], server: grpc.aio.Server) -> None:
    """Reflection under both its names: v1 is v1alpha on the wire, and newer tools ask for it first."""
    servicer = reflection.aio.ReflectionServicer(names)
    for name in (_REFLECTION.full_name, "grpc.reflection.v1.ServerReflection"):
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})])


def _options(settings: ListenerSettings) -> list[tuple[str, int]]:
    options = {
        # A second server on the port would silently take half of the calls.
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": settings.max_receive_message_bytes,
        "grpc.max_send_message_length": -1,
        # Above the first limit gRPC would refuse some and let others pass, by chance, up to the second one.
        "grpc.max_metadata_size": MAX_METADATA,
        "grpc.absolute_max_metadata_size": MAX_METADATA,
        "grpc.max_concurrent_streams": settings.max_streams_per_connection,
        "grpc.keepalive_time_ms": round(settings.keepalive_time * 1000),
        "grpc.keepalive_timeout_ms": round(settings.keepalive_timeout * 1000),
        # The timeout of keepalive alone does not end a connection with open streams: the ping's own does, which is a minute by default.
        "grpc.http2.ping_timeout_ms": round(settings.keepalive_timeout * 1000),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": round(settings.min_ping_interval * 1000),
        "grpc.max_connection_age_ms": 2**31 - 1 if settings.max_connection_age is None else round(settings.max_connection_age * 1000),
        "grpc.server_handshake_timeout_ms": 10_000,
    }
    return list(options.items())
