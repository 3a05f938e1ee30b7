"""Plans, from the domain to protobuf."""

from headrace.v1 import generation_service_pb2 as pb
from headrace.v1 import result_pb2
from headrace_server.domain.plan import Plan, PlannedProvider
from headrace_server.rpc.codec_provider import encode_quota
from headrace_server.rpc.codec_values import maybe_duration, utf8


def encode_plan(plan: Plan) -> pb.ExplainGenerationResponse:
    """A plan in protobuf."""
    return pb.ExplainGenerationResponse(
        providers=[_encode_planned(planned, plan.time) for planned in plan.providers],
        expected_wait=maybe_duration(plan.expected_wait),
        field_violations=[result_pb2.FieldViolation(field=utf8(v.field), description=utf8(v.description)) for v in plan.violations],
    )


def _encode_planned(planned: PlannedProvider, now: int) -> pb.PlannedProvider:
    return pb.PlannedProvider(
        provider=planned.provider,
        model=planned.model,
        skip_reason=utf8(planned.skip_reason),
        quotas=[encode_quota(window, now) for window in planned.windows],
    )
