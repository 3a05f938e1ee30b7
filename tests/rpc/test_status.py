import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import result_pb2
from headrace_server.domain.errors import ErrorCode, RateLimitInfo, Subreason, Violation
from headrace_server.domain.lifecycle import State
from headrace_server.domain.result import Attempt, GenerationResult, ProviderError
from headrace_server.rpc.status import MAX_MESSAGE, STATUS, BrokenMessage, abort, status_code, to_status, trailers

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
C, S, G = ErrorCode, Subreason, grpc.StatusCode


def error(code: ErrorCode, subreason: str = "", **fields: Any) -> ProviderError:
    return ProviderError(**{"request_id": ID, "message": "what happened", "code": code, "subreason": subreason, **fields})


def attempt(model: str = "gpt-4o", cause: ProviderError | None = None) -> Attempt:
    return Attempt(provider="openai", model=model, state=State.FAILED, error=cause, start_time=1_000)


def details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for detail in status.details:
        name = detail.TypeName().rpartition(".")[2]
        message = result_pb2.ProviderError() if name == "ProviderError" else getattr(error_details_pb2, name)()
        assert detail.Unpack(message)
        assert name not in found
        found[name] = message
    return found


@pytest.mark.parametrize("subreason", ["", *Subreason, "SOMETHING_NEW"])
@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_with_every_subreason_has_a_status_that_is_an_error(code: ErrorCode, subreason: str) -> None:
    status = to_status(error(code, subreason))
    assert status.code == status_code(error(code, subreason)).value[0] != 0
    assert {"ErrorInfo", "ProviderError"} <= set(details(status))


def test_the_table_holds_a_row_for_every_code() -> None:
    assert {code for code, subreason in STATUS if not subreason} == set(ErrorCode)


@pytest.mark.parametrize(
    ("code", "subreason", "status", "kinds"),
    [
        (C.AUTHENTICATION_ERROR, "", G.FAILED_PRECONDITION, set()),
        (C.AUTHENTICATION_ERROR, S.PERMISSION, G.FAILED_PRECONDITION, set()),
        (C.AUTHENTICATION_ERROR, S.REGION, G.FAILED_PRECONDITION, set()),
        (C.AUTHENTICATION_ERROR, S.BAD_CREDENTIAL_FORMAT, G.FAILED_PRECONDITION, set()),
        (C.AUTHENTICATION_ERROR, S.NO_API_KEY, G.FAILED_PRECONDITION, set()),
        (C.AUTHENTICATION_ERROR, S.UNAUTHENTICATED, G.UNAUTHENTICATED, set()),
        (C.AUTHENTICATION_ERROR, S.PERMISSION_DENIED, G.PERMISSION_DENIED, set()),
        (C.INVALID_REQUEST, "", G.INVALID_ARGUMENT, {"BadRequest"}),
        (C.INVALID_REQUEST, S.CONTEXT_LENGTH, G.INVALID_ARGUMENT, {"BadRequest"}),
        (C.INVALID_REQUEST, S.TOO_LARGE, G.INVALID_ARGUMENT, {"BadRequest"}),
        (C.INVALID_REQUEST, S.ALREADY_EXISTS, G.ALREADY_EXISTS, {"ResourceInfo"}),
        (C.INVALID_REQUEST, S.REQUEST_NOT_FOUND, G.NOT_FOUND, {"ResourceInfo"}),
        (C.INVALID_REQUEST, S.PROVIDER_NOT_FOUND, G.NOT_FOUND, {"ResourceInfo"}),
        (C.INVALID_REQUEST, S.PROVIDER_IN_FILE, G.FAILED_PRECONDITION, set()),
        (C.INVALID_REQUEST, S.PROVIDER_IN_USE, G.FAILED_PRECONDITION, set()),
        (C.INVALID_REQUEST, S.PROVIDER_DISABLED, G.FAILED_PRECONDITION, set()),
        (C.INVALID_REQUEST, S.OUT_OF_RANGE, G.OUT_OF_RANGE, set()),
        (C.RATE_LIMIT_EXCEEDED, "", G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.RATE_LIMIT_EXCEEDED, S.RAMP, G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.RATE_LIMIT_EXCEEDED, S.NEVER_FITS, G.RESOURCE_EXHAUSTED, {"QuotaFailure"}),
        (C.RATE_LIMIT_EXCEEDED, S.QUEUE_FULL, G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.RATE_LIMIT_EXCEEDED, S.TOO_MANY_IN_FLIGHT, G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.QUOTA_EXCEEDED, "", G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.QUOTA_EXCEEDED, S.BILLING, G.RESOURCE_EXHAUSTED, {"RetryInfo", "QuotaFailure"}),
        (C.SERVER_ERROR, "", G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.OVERLOADED, G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.MALFORMED_EVENT, G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.REDIRECT_BLOCKED, G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.SHUTTING_DOWN, G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.STORAGE, G.UNAVAILABLE, {"RetryInfo"}),
        (C.SERVER_ERROR, S.CIRCUIT_OPEN, G.UNAVAILABLE, {"RetryInfo"}),
        (C.NETWORK_ERROR, "", G.UNAVAILABLE, {"RetryInfo"}),
        (C.NETWORK_ERROR, S.STREAM_TRUNCATED, G.UNAVAILABLE, {"RetryInfo"}),
        (C.TIMEOUT, "", G.DEADLINE_EXCEEDED, set()),
        (C.TIMEOUT, S.STREAM_IDLE, G.DEADLINE_EXCEEDED, set()),
        (C.CONTENT_FILTER, "", G.INVALID_ARGUMENT, {"BadRequest"}),
        (C.MODEL_NOT_FOUND, "", G.NOT_FOUND, {"ResourceInfo"}),
        (C.UNKNOWN_ERROR, "", G.UNKNOWN, set()),
        (C.UNKNOWN_ERROR, S.INTERNAL, G.INTERNAL, set()),
        (C.CANCELLED, "", G.CANCELLED, set()),
        (C.CANCELLED, S.SLOW_CLIENT, G.CANCELLED, set()),
        (C.INTERRUPTED, "", G.UNAVAILABLE, {"RetryInfo"}),
        (C.INTERRUPTED, S.SHUTTING_DOWN, G.UNAVAILABLE, {"RetryInfo"}),
    ],
)
def test_a_code_has_its_status_and_details_when_the_delay_is_known(code: C, subreason: str, status: G, kinds: set[str]) -> None:
    built = to_status(error(code, subreason, rate_limit=RateLimitInfo(retry_after=1_500)))
    assert built.code == status.value[0]
    assert set(details(built)) == {"ErrorInfo", "ProviderError", *kinds}
    assert "RetryInfo" not in details(to_status(error(code, subreason)))


def test_error_info_tells_what_programs_branch_on() -> None:
    built = to_status(
        error(
            C.RATE_LIMIT_EXCEEDED,
            S.RAMP,
            provider="openai",
            http_status=429,
            provider_type="tokens",
            provider_code="slow_down",
            provider_request_id="req_1",
            retryable=True,
            attempts=(attempt(), attempt("gpt-4o-mini")),
            rate_limit=RateLimitInfo(retry_after=6_596, reset_time=1_775_001_600_000),
        ),
        delivered_chunks=3,
    )
    info = details(built)["ErrorInfo"]
    assert (info.domain, info.reason) == ("headrace.dev", "RATE_LIMIT_EXCEEDED")
    assert dict(info.metadata) == {
        "subreason": "RAMP",
        "origin": "provider",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "http_status": "429",
        "provider_type": "tokens",
        "provider_code": "slow_down",
        "provider_request_id": "req_1",
        "attempts": "2",
        "retryable": "true",
        "delivered_chunks": "3",
        "reset_at": "2026-04-01T00:00:00+00:00",
        "request_id": ID,
    }
    assert details(built)["RetryInfo"].retry_delay.ToMilliseconds() == 6_596
    violation = details(built)["QuotaFailure"].violations[0]
    assert (violation.subject, violation.description) == ("openai/gpt-4o-mini", "what happened")


def test_a_limit_of_our_own_is_told_from_a_providers() -> None:
    assert details(to_status(error(C.RATE_LIMIT_EXCEEDED)))["ErrorInfo"].metadata["origin"] == "gateway"
    assert details(to_status(error(C.RATE_LIMIT_EXCEEDED, http_status=429)))["ErrorInfo"].metadata["origin"] == "provider"
    assert details(to_status(error(C.NETWORK_ERROR)))["ErrorInfo"].metadata["origin"] == "provider"
    assert details(to_status(error(C.SERVER_ERROR, S.STORAGE)))["ErrorInfo"].metadata["origin"] == "gateway"


def test_bad_request_names_every_wrong_field() -> None:
    wrong = tuple(Violation(field=f"tools[{i}].name", description="is wrong") for i in range(10))
    bad = details(to_status(error(C.INVALID_REQUEST, field_violations=wrong)))["BadRequest"]
    assert [(v.field, v.description) for v in bad.field_violations] == [(v.field, v.description) for v in wrong]


def test_bad_request_says_how_many_more_fields_are_wrong_when_they_do_not_fit() -> None:
    wrong = tuple(Violation(field=f"messages[{i}].content[0].text", description="must not contain NUL") for i in range(1_000))
    bad = details(to_status(error(C.INVALID_REQUEST, field_violations=wrong)))["BadRequest"]
    *shown, last = bad.field_violations
    assert len(shown) > 20
    assert [v.field for v in shown] == [v.field for v in wrong[: len(shown)]]
    assert last.description.startswith(f"{1_000 - len(shown)} more fields are wrong")


def test_a_missing_model_is_named_as_a_resource() -> None:
    resource = details(to_status(error(C.MODEL_NOT_FOUND, provider="openai", attempts=(attempt("gpt-0"),))))["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name, resource.owner) == ("model", "gpt-0", "openai")


def test_the_error_comes_along_without_partial_and_with_its_attempts() -> None:
    cause = error(C.SERVER_ERROR, message="x" * 500, partial=GenerationResult())
    whole = error(C.SERVER_ERROR, partial=GenerationResult(provider="p"), attempts=(attempt("first", cause), attempt("second", cause)))
    shown = details(to_status(whole))["ProviderError"]
    assert not shown.HasField("partial")
    assert [a.model for a in shown.attempts] == ["first", "second"]
    assert shown.attempts[0].error.code == 4


def test_the_first_attempts_go_first_when_there_is_no_room_for_all() -> None:
    attempts = tuple(attempt(f"m{i}", error(C.SERVER_ERROR, provider_type="overloaded_error")) for i in range(100))
    shown = details(to_status(error(C.SERVER_ERROR, attempts=attempts)))["ProviderError"]
    assert 10 < len(shown.attempts) < 100
    assert [a.model for a in shown.attempts] == [f"m{i}" for i in range(100 - len(shown.attempts), 100)]


big = st.sampled_from(["x", "ü", "\n", "😀", "%", "\ud83d"]).flatmap(
    lambda c: st.sampled_from([0, 1, 63, 64, 65, 200, 999, 1_000, 5_000, 100_000]).map(lambda n: c * n)
)


@given(data=st.data())
def test_a_status_stays_within_its_bounds_whatever_it_is_made_of(data: st.DataObject, generated: SimpleNamespace) -> None:
    cause = data.draw(generated.errors)
    texts = {
        name: data.draw(big)
        for name in ("message", "provider", "provider_type", "provider_code", "provider_request_id", "provider_text", "request_id")
    }
    count = data.draw(st.sampled_from([0, 1, 2, 30]))
    huge = cause.model_copy(
        update={
            **texts,
            "subreason": data.draw(st.sampled_from(["", *Subreason]) | big),
            "attempts": cause.attempts * count + (attempt().model_copy(update={"model": data.draw(big), "error": cause}),) * count,
            "field_violations": (Violation.model_construct(field=data.draw(big), description=data.draw(big)),) * count,
        }
    )
    status = to_status(huge, delivered_chunks=data.draw(st.integers(0, 2**40)))
    assert status.ByteSize() < 4_096
    assert len(percent_encoded(status.message)) <= MAX_MESSAGE < 1_024
    assert {"ErrorInfo", "ProviderError"} <= set(details(status))


def percent_encoded(message: str) -> str:
    """As gRPC puts a message into its trailer."""
    return "".join(chr(b) if 0x20 <= b <= 0x7E and b != 0x25 else f"%{b:02X}" for b in message.encode())


def test_a_message_that_fits_is_left_as_it_is() -> None:
    assert to_status(error(C.TIMEOUT, message="100 % späť")).message == "100 % späť"
    assert to_status(error(C.TIMEOUT, message="x" * 5_000)).message == "x" * (MAX_MESSAGE - 9) + "…"


def test_a_client_is_told_not_to_retry_only_after_attempts_of_our_own() -> None:
    assert trailers(error(C.SERVER_ERROR)) == ()
    assert trailers(error(C.SERVER_ERROR, attempts=(attempt(),))) == (("grpc-retry-pushback-ms", "-1"),)


def test_a_broken_message_says_what_it_should_have_been() -> None:
    assert str(BrokenMessage("headrace.v1.GenerateRequest")) == "the message could not be read as a headrace.v1.GenerateRequest"


# ---------------------------------------------------------------- over a real connection

LATE = error(C.TIMEOUT, S.STREAM_IDLE, message="nothing came für 30 s", provider="openai", attempts=(attempt(),))
HUGE = error(C.INVALID_REQUEST, message="ü" * 10_000, field_violations=(Violation(field="f" * 300, description="d" * 300),) * 500)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server that ends every RPC with an error: unary by its request, streams after two messages."""

    async def unary(request: bytes, context: Any) -> bytes:
        await abort(context, HUGE if request == b"huge" else LATE)
        raise AssertionError("abort returned")

    async def stream(requests: Any, context: Any) -> None:
        await context.write(b"one")
        await context.write(b"two")
        await abort(context, LATE, delivered_chunks=2)

    server = grpc.aio.server()
    methods = {"Unary": grpc.unary_unary_rpc_method_handler(unary), "Stream": grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.mark.parametrize("request_", [b"late", b"huge"])
async def test_a_blocking_client_reads_code_message_and_details(address: str, request_: bytes) -> None:
    def call() -> grpc.RpcError:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/test.Test/Unary")(request_, timeout=5)
        return caught.value

    caught: Any = await asyncio.to_thread(call)
    sent = HUGE if request_ == b"huge" else LATE
    status = rpc_status.from_call(caught)
    assert status == to_status(sent)
    assert caught.code() is status_code(sent)
    assert caught.details() == status.message
    assert dict(caught.trailing_metadata()).get("grpc-retry-pushback-ms") == ("-1" if sent is LATE else None)


async def test_an_async_client_reads_the_status_after_streamed_messages(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/test.Test/Stream")(timeout=5)
        await call.done_writing()
        received = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                received.append(await call.read())
        assert received == [b"one", b"two"]
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        status = rpc_status.from_call(caught.value)
        info = details(status)["ErrorInfo"]
        assert (info.metadata["subreason"], info.metadata["delivered_chunks"]) == ("STREAM_IDLE", "2")
        assert details(status)["ProviderError"].code == 5
