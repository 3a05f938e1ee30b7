"""AnalyticsService: what the records add up to."""

from headrace.v1 import analytics_service_pb2 as pb
from headrace_server.domain.analytics import Analytics
from headrace_server.domain.ports import WallClock
from headrace_server.rpc.codec_analytics import (
    decode_failed_requests,
    decode_get_usage,
    decode_hourly_performance,
    decode_success_rates,
    encode_failed_requests,
    encode_hourly_performance,
    encode_success_rates,
    encode_usage,
)
from headrace_server.rpc.methods import Context


class AnalyticsServicer:
    """See analytics_service.proto."""

    def __init__(self, analytics: Analytics, *, clock: WallClock) -> None:
        self._analytics = analytics
        self._clock = clock

    async def ListSuccessRates(self, request: pb.ListSuccessRatesRequest, context: Context) -> pb.ListSuccessRatesResponse:  # noqa: D102
        query = decode_success_rates(request, self._clock())
        return encode_success_rates(request, query, await self._analytics.list_success_rates(query))

    async def ListHourlyPerformance(  # noqa: D102
        self, request: pb.ListHourlyPerformanceRequest, context: Context
    ) -> pb.ListHourlyPerformanceResponse:
        query = decode_hourly_performance(request, self._clock())
        return encode_hourly_performance(request, query, await self._analytics.list_hourly_performance(query))

    async def ListFailedRequests(self, request: pb.ListFailedRequestsRequest, context: Context) -> pb.ListFailedRequestsResponse:  # noqa: D102
        query = decode_failed_requests(request, self._clock())
        return encode_failed_requests(request, query, await self._analytics.list_failed_requests(query))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:  # noqa: D102
        return encode_usage(await self._analytics.get_usage(decode_get_usage(request, self._clock())))
