"""What the Python client promises besides the scenario: connections that break anywhere, errors, retries, requests from plain arguments."""

import asyncio
import pickle
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from google.rpc import error_details_pb2, status_pb2

import headrace
from clients.environment import CUTS, CuttingProxy
from headrace import aio
from headrace._details import read_details
from headrace._reading import Reading
from headrace.errors import from_event
from headrace.request import build_request
from headrace.retry import Deadline, Tries
from headrace.v1 import error_pb2, event_pb2, lifecycle_pb2, request_pb2, result_pb2
from headrace_server.app import running
from headrace_server.fake_provider import FakeProvider, Step
from support.scenario import FIELDS, PROMPT, SAID, TOKENS, check_stream
from support.service import settings

README = Path(__file__).resolve().parent.parent.parent / "README.md"
ERROR = result_pb2.ProviderError(code=error_pb2.ERROR_CODE_SERVER_ERROR, message="no", retryable=True)


async def test_the_example_of_the_readme_streams_an_answer(target):
    (example,) = re.findall(r"<!-- python client -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    script = example.replace("localhost:50051", target)
    process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", script, stdout=subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0
    assert re.search(r"You said: What does a river do\?.*\n5 \+ \d+ tokens, request [0-9a-f-]{36}\n", output.decode())


# ---------------------------------------------------------------- connections


async def test_a_stream_goes_on_over_as_many_connections_as_it_takes(variables):
    async with CuttingProxy(_port(variables["HEADRACE_TARGET"])) as proxy, aio.Client(f"127.0.0.1:{proxy.port}") as client:
        async with client.stream(PROMPT, provider="slow", **FIELDS) as stream:
            check_stream([event async for event in stream.events()])
        assert proxy.cuts == CUTS


async def test_a_session_resumes_all_of_its_generations(variables):
    async with CuttingProxy(_port(variables["HEADRACE_TARGET"])) as proxy, aio.Client(f"127.0.0.1:{proxy.port}") as client:
        async with client.session() as session:
            answers = await asyncio.gather(*(session.generate(PROMPT, provider="slow", **FIELDS) for _ in range(5)))
        assert {answer.text for answer in answers} == {"".join(TOKENS)}
        assert proxy.cuts == CUTS


def test_a_blocking_session_resumes_all_of_its_generations(proxy):
    with headrace.Client(proxy) as client, client.session() as session:
        streams = [session.stream(PROMPT, provider="slow", **FIELDS) for _ in range(5)]
        for stream in streams:
            check_stream(list(stream.events()))


def test_a_lost_connection_is_an_error_when_the_policy_is_cancel(proxy):
    with headrace.Client(proxy) as client, pytest.raises(headrace.ConnectionLost) as caught:
        policy = request_pb2.DISCONNECT_POLICY_CANCEL
        client.stream(PROMPT, provider="slow", on_disconnect=policy, **FIELDS).answer()

    assert caught.value.request_id


async def test_a_restarted_service_is_found_again_and_nothing_runs_twice(tmp_path):
    """The port is closed for a while: the first tries find nobody, the last one an idle service."""
    async with FakeProvider([Step(text="once", times=0)]) as provider:
        async with running(settings(tmp_path, provider)) as first:
            port = first.port
        async with aio.Client(f"127.0.0.1:{port}", retry=headrace.Retry(attempts=20, max_delay=0.2)) as client:
            asked = [asyncio.create_task(client.generate("x")), asyncio.create_task(client.stream("x").answer())]
            await asyncio.sleep(0.3)
            async with running(settings(tmp_path, provider, listen=f"127.0.0.1:{port}")):
                assert [answer.text for answer in await asyncio.gather(*asked)] == ["once", "once"]
        assert len(provider.requests) == 2


def test_nobody_there_is_told_after_the_last_try():
    with headrace.Client("127.0.0.1:1", retry=headrace.Retry(attempts=2, initial_delay=0.01)) as client:
        with pytest.raises(headrace.ConnectionLost):
            client.generate("x")
        with pytest.raises(headrace.ConnectionLost):
            client.stream("x").answer()
        with client.session() as session, pytest.raises(headrace.ConnectionLost):
            session.generate("x")


# ---------------------------------------------------------------- ends


def test_the_deadline_of_one_of_a_session_is_told_with_what_there_was(client):
    with client.session() as session, pytest.raises(headrace.TimedOut) as caught:
        session.generate(PROMPT, provider="slow", timeout=1.0, **FIELDS)

    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith(" tok0")


def test_what_there_is_not_is_not_found(client):
    with pytest.raises(headrace.NotFound):
        client.get(str(uuid.uuid4()))
    with pytest.raises(headrace.NotFound):
        list(client.watch(str(uuid.uuid4())))
    with pytest.raises(headrace.NotFound):
        client.attach(str(uuid.uuid4())).answer()


# ---------------------------------------------------------------- ids


@pytest.mark.timeout(20)
def test_an_answer_is_found_when_its_id_is_written_in_upper_case(client):
    ids = [str(uuid.uuid4()) for _ in range(3)]
    asked = [{"provider": "echo", "request_id": request_id.upper(), **FIELDS} for request_id in ids]
    with client.session() as session, client.stream(PROMPT, **asked[1]) as stream:
        answers = [client.generate(PROMPT, **asked[0]), stream.answer(), session.generate(PROMPT, **asked[2])]

    assert [(answer.text, answer.request_id) for answer in answers] == [(SAID, request_id) for request_id in ids]


@pytest.mark.timeout(20)
async def test_an_answer_is_found_when_its_id_is_written_in_upper_case_in_asyncio(aclient):
    ids = [str(uuid.uuid4()) for _ in range(3)]
    asked = [{"provider": "echo", "request_id": request_id.upper(), **FIELDS} for request_id in ids]
    async with aclient.session() as session, aclient.stream(PROMPT, **asked[1]) as stream:
        answers = [await aclient.generate(PROMPT, **asked[0]), await stream.answer(), await session.generate(PROMPT, **asked[2])]

    assert [(answer.text, answer.request_id) for answer in answers] == [(SAID, request_id) for request_id in ids]


WRONG = {"request_id": "Mine", "provider": "echo", **FIELDS}
WORSE = {"request_id": "Mine too", "provider": "echo", "temperature": 3, **FIELDS}
REFUSED = [{"request_id"}, {"request_id", "temperature"}, {"request_id"}, {"request_id"}]


def _wrong_fields(refusal: pytest.ExceptionInfo[headrace.InvalidRequest]) -> set[str]:
    return {violation.field for violation in refusal.value.field_violations}


@pytest.mark.timeout(20)
def test_a_wrong_id_fails_with_the_error_of_the_service_and_others_go_on(client):
    with client.session() as session:
        wrong, good, worse = (session.stream(PROMPT, **fields) for fields in (WRONG, {"provider": "echo", **FIELDS}, WORSE))
        refusals = []
        for stream in (wrong, worse, client.stream(PROMPT, **WRONG)):
            with pytest.raises(headrace.InvalidRequest) as refusal:
                stream.answer()
            refusals.append(refusal)
        with pytest.raises(headrace.InvalidRequest) as refusal:
            client.generate(PROMPT, **WRONG)
        assert good.answer().text == SAID

    assert [_wrong_fields(one) for one in (*refusals, refusal)] == REFUSED


@pytest.mark.timeout(20)
async def test_a_wrong_id_fails_with_the_error_of_the_service_and_others_go_on_in_asyncio(aclient):
    async with aclient.session() as session:
        wrong, good, worse = (session.stream(PROMPT, **fields) for fields in (WRONG, {"provider": "echo", **FIELDS}, WORSE))
        refusals = []
        for stream in (wrong, worse, aclient.stream(PROMPT, **WRONG)):
            with pytest.raises(headrace.InvalidRequest) as refusal:
                await stream.answer()
            refusals.append(refusal)
        with pytest.raises(headrace.InvalidRequest) as refusal:
            await aclient.generate(PROMPT, **WRONG)
        assert (await good.answer()).text == SAID

    assert [_wrong_fields(one) for one in (*refusals, refusal)] == REFUSED


async def test_a_generation_that_runs_in_a_session_is_not_started_again(client, aclient):
    fields = {"request_id": headrace.new_id(), "provider": "echo", **FIELDS}
    again = {**fields, "request_id": fields["request_id"].upper()}
    async with aclient.session() as session:
        stream = session.stream(PROMPT, **fields)
        with pytest.raises(ValueError, match="runs in this session already"):
            session.stream("something else", **again)
        assert (await stream.answer()).text == SAID
        assert (await session.generate(PROMPT, **again)).text == SAID, "what has ended is told again"

    def blocking() -> None:
        slow = {"request_id": headrace.new_id(), "provider": "slow", **FIELDS}  # it still runs when its id comes again
        with client.session() as session:
            stream = session.stream(PROMPT, **slow)
            with pytest.raises(ValueError, match="runs in this session already"):
                session.stream("something else", **{**slow, "request_id": slow["request_id"].upper()})
            assert stream.answer().text == "".join(TOKENS)

    await asyncio.to_thread(blocking)


# ---------------------------------------------------------------- what is read of a generation


def _chunk(index: int, text: str) -> event_pb2.GenerationEvent:
    return event_pb2.GenerationEvent(request_id="r", chunk={"index": index, "text": text})


def test_events_that_are_told_again_are_taken_once():
    reading = Reading("r", request=request_pb2.GenerateRequest(request_id="r"))
    began = event_pb2.GenerationEvent(request_id="r", transition=lifecycle_pb2.StateTransition(from_state=1, to_state=2))
    assert reading.command().HasField("generate")

    assert [reading.take(event) for event in (began, _chunk(0, "a"), _chunk(1, "b"))] == [True] * 3
    assert reading.command().resume.next_index == 2
    assert [reading.take(event) for event in (began, _chunk(1, "b"), _chunk(2, "c"))] == [False, False, True]
    assert reading.text == "abc"


@pytest.mark.parametrize(
    ("asked", "sent", "runs_on"),
    [("UNSPECIFIED", "KEEP", False), ("CANCEL", "CANCEL", False), ("DRAIN", "DRAIN", True), ("KEEP", "KEEP", True)],
)
def test_it_is_sent_with_keep_when_nothing_else_is_asked_for_and_runs_on_only_when_that_is(asked, sent, runs_on):
    policies = request_pb2.DisconnectPolicy
    request = request_pb2.GenerateRequest(request_id="r", on_disconnect=policies.Value(f"DISCONNECT_POLICY_{asked}"))
    reading = Reading("r", request=request)

    assert policies.Name(reading.command().generate.on_disconnect) == f"DISCONNECT_POLICY_{sent}"
    assert reading.runs_on is runs_on


def test_a_missing_chunk_is_never_passed_over():
    reading = Reading("r", next_index=3)
    with pytest.raises(headrace.HeadraceError, match="chunk 4 came where 3 was due"):
        reading.take(_chunk(4, "x"))


def test_a_discontinuity_takes_text_back():
    reading = Reading("r")
    again = event_pb2.GenerationEvent(request_id="r", discontinuity={"discard_from_index": 1, "provider": "second"})
    for event in (_chunk(0, "kept "), _chunk(1, "lost "), again, _chunk(2, "new"), again):
        reading.take(event)

    assert reading.text == "kept new"
    assert reading.next_index == 3


def test_a_refusal_before_anything_was_done_is_no_end():
    reading = Reading("r", request=request_pb2.GenerateRequest(request_id="r"))
    refusal = result_pb2.ProviderError(code=error_pb2.ERROR_CODE_SERVER_ERROR, subreason="SHUTTING_DOWN")

    assert not reading.take(event_pb2.GenerationEvent(request_id="r", failed=refusal))
    assert not reading.is_over
    assert reading.lost(None).subreason == "SHUTTING_DOWN"
    assert reading.command().HasField("generate")


# ---------------------------------------------------------------- tries


def _error(subreason: str = "", code: int = error_pb2.ERROR_CODE_SERVER_ERROR, **fields) -> headrace.HeadraceError:
    return from_event(result_pb2.ProviderError(code=code, subreason=subreason, **fields))


@pytest.mark.parametrize(
    ("error", "safe"),
    [
        (_error("SHUTTING_DOWN"), True),
        (_error("STORAGE"), True),
        (_error("STORAGE", attempts=[result_pb2.Attempt()]), False),
        (_error("CIRCUIT_OPEN"), False),
        (_error("OVERLOADED"), False),
        (_error("SHUTTING_DOWN", error_pb2.ERROR_CODE_INTERRUPTED), False),
        (_error("TOO_MANY_IN_FLIGHT", error_pb2.ERROR_CODE_RATE_LIMIT_EXCEEDED), False),
        (headrace.errors.connection_lost("r"), True),
    ],
)
def test_only_what_was_never_begun_is_sent_again(error, safe):
    assert error.is_safe_to_repeat is safe


def test_tries_grow_apart_and_end():
    tries = Tries(headrace.Retry(attempts=4, initial_delay=1, max_delay=2), Deadline(None))
    lost = headrace.errors.connection_lost("r")
    delays = [tries.delay(lost) for _ in range(3)]

    assert 0.8 <= delays[0] <= 1.2 < 1.6 <= delays[1] <= 2.4
    with pytest.raises(headrace.ConnectionLost):
        tries.delay(lost)
    tries.progress()
    assert tries.delay(lost) <= 1.2


def test_a_delay_that_the_service_names_is_kept_or_the_error_is_told():
    named = _error("SHUTTING_DOWN", rate_limit={"retry_after": {"seconds": 9}})
    assert Tries(headrace.Retry(), Deadline(60)).delay(named) == 9
    with pytest.raises(headrace.Unavailable):
        Tries(headrace.Retry(), Deadline(3)).delay(named)


def test_a_status_is_read_without_the_packages_of_google():
    status = status_pb2.Status(code=14, message="no")
    for detail in (
        error_details_pb2.ErrorInfo(reason="SERVER_ERROR", domain="headrace.dev"),
        error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000}),
        error_details_pb2.BadRequest(field_violations=[{"field": "temperature", "description": "must be at most 2"}]),
        ERROR,
    ):
        status.details.add().Pack(detail)
    details = read_details({"grpc-status-details-bin": status.SerializeToString(), "grpc-retry-pushback-ms": "-1"})

    assert details.error == ERROR
    assert (details.retry_after, details.is_final) == (1.5, True)
    assert [(one.field, one.description) for one in details.field_violations] == [("temperature", "must be at most 2")]
    assert read_details({"grpc-status-details-bin": b"\xff\xff", "grpc-retry-pushback-ms": "250"}).retry_after == 0.25


def test_whoever_asks_not_to_be_asked_again_is_not():
    final = read_details({"grpc-retry-pushback-ms": "-1"})
    assert not headrace.ConnectionLost(ERROR, final).is_safe_to_repeat


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (error_pb2.ERROR_CODE_AUTHENTICATION_ERROR, headrace.AuthenticationFailed),
        (error_pb2.ERROR_CODE_INVALID_REQUEST, headrace.InvalidRequest),
        (error_pb2.ERROR_CODE_RATE_LIMIT_EXCEEDED, headrace.RateLimited),
        (error_pb2.ERROR_CODE_SERVER_ERROR, headrace.Unavailable),
        (error_pb2.ERROR_CODE_TIMEOUT, headrace.TimedOut),
        (error_pb2.ERROR_CODE_NETWORK_ERROR, headrace.Unavailable),
        (error_pb2.ERROR_CODE_CONTENT_FILTER, headrace.ContentFiltered),
        (error_pb2.ERROR_CODE_MODEL_NOT_FOUND, headrace.ModelNotFound),
        (error_pb2.ERROR_CODE_QUOTA_EXCEEDED, headrace.QuotaExceeded),
        (error_pb2.ERROR_CODE_UNKNOWN_ERROR, headrace.HeadraceError),
        (error_pb2.ERROR_CODE_CANCELLED, headrace.Cancelled),
        (error_pb2.ERROR_CODE_INTERRUPTED, headrace.Interrupted),
        (99, headrace.HeadraceError),
    ],
)
def test_every_code_has_its_exception_also_in_another_process(code, kind):
    error = from_event(result_pb2.ProviderError(code=code, message="why", request_id="r"))
    again = pickle.loads(pickle.dumps(error))

    assert type(error) is type(again) is kind
    assert (str(again), again.request_id, again.code) == ("why", "r", error.code)


# ---------------------------------------------------------------- requests


def test_a_request_is_made_of_a_text_and_fields():
    request = build_request("Hi", {"provider": "claude", "system": "Be brief.", "max_tokens": 5, "provider_options": {"a": [1]}}, 2.5)

    assert [(message.role, message.content[0].text) for message in request.messages] == [(3, "Be brief."), (1, "Hi")]
    assert (request.provider, request.max_tokens) == ("claude", 5)
    assert request.timeouts.total.ToMilliseconds() == 2500
    assert request.provider_options["a"][0] == 1
    made = uuid.UUID(request.request_id)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_a_request_that_is_there_already_is_kept_and_not_changed():
    given = request_pb2.GenerateRequest(
        request_id="r",
        messages=[headrace.user("Hi")],
        on_disconnect=request_pb2.DISCONNECT_POLICY_DRAIN,
        timeouts={"total": {"seconds": 1}},
    )
    before = request_pb2.GenerateRequest.FromString(given.SerializeToString())

    made = build_request(given, {"model": "m"}, 5)

    assert given == before
    assert (made.request_id, made.model, made.on_disconnect) == ("r", "m", request_pb2.DISCONNECT_POLICY_DRAIN)
    assert made.timeouts.total.seconds == 1


def test_every_field_of_a_request_may_be_given_by_its_name():
    fields = {field.name for field in request_pb2.GenerateRequest.DESCRIPTOR.fields}
    assert set(headrace.RequestFields.__annotations__) == fields - {"messages"} | {"system"}


def test_ids_of_the_client_sort_by_time():
    first = headrace.new_id()
    assert uuid.UUID(headrace.new_id()).int >> 80 >= uuid.UUID(first).int >> 80


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
