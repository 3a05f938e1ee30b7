"""What every store does: this suite runs on all of them."""

import asyncio
import uuid
from typing import Any

import pytest

from headrace_server.domain.errors import CorruptRow, ErrorCode, RateLimitInfo, ReplaySafety, StoreUnavailable, Violation
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.provider import Dialect, ProviderRow, ProviderSettings
from headrace_server.domain.record import RequestQuery, UnreadRequest
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, FallbackInfo, FinishReason, GenerationResult, ProviderError
from headrace_server.domain.usage import Usage, UsageSource
from support.store import listed, salvaged

RPM = LimitType.REQUESTS_PER_MINUTE
TPM = LimitType.TOKENS_PER_MINUTE
RPD = LimitType.REQUESTS_PER_DAY
LIMITS = {RPM: 10, TPM: 1_000, RPD: 100}


def rich_request(request_id: str) -> GenerateRequest:
    return GenerateRequest.model_validate(
        {
            "request_id": request_id,
            "stream": True,
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "be brief – ünïcode 🎏"}]},
                {"role": "user", "content": [{"type": "image", "media_type": "image/png", "data": b"\x00\xff\x89PNG"}]},
                {"role": "assistant", "content": [{"type": "tool_call", "id": "c1", "name": "f", "arguments_json": "{}"}]},
                {
                    "role": "tool",
                    "content": [{"type": "tool_result", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]}],
                },
            ],
            "response_format": {"type": "json_schema", "name": "s", "schema_json": "{}"},
            "metadata": {"tags": ["a", "b"]},
            "provider_options": {"nothing": None, "inside": [None, {"deep": None}]},
        }
    )


# ---------------------------------------------------------------- accept


async def test_accept_inserts_when_the_id_is_new(store: Any, make: Any) -> None:
    row = make.row()
    assert await store.accept(row) is None
    assert await store.get(row.request_id) == row


async def test_accept_returns_the_standing_row_when_the_id_is_known(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    running = make.running(row)
    await store.update(running)
    assert await store.accept(make.row(row.request_id, user_id="other")) == running
    assert await store.get(row.request_id) == running


async def test_accept_takes_over_when_validation_refused_the_row(store: Any, make: Any) -> None:
    refused = make.row(state=State.FAILED, error_code=ErrorCode.INVALID_REQUEST, request_data=UnreadRequest(unread={"x": None}))
    await store.accept(refused)
    row = make.row(refused.request_id)
    assert await store.accept(row) is None
    assert await store.get(row.request_id) == row


async def test_accept_does_not_take_over_when_a_provider_refused_the_request(store: Any, make: Any) -> None:
    row = make.running(make.row())
    await store.accept(row)
    failed = await store.finish(make.ended(row, State.FAILED, error_code=ErrorCode.INVALID_REQUEST), [], [])
    assert await store.accept(make.row(row.request_id)) == failed


async def test_accept_inserts_one_row_when_many_come_at_once(store: Any, make: Any) -> None:
    rows = [make.row("01890a5d-ac96-774b-bcce-b302099a8057") for _ in range(50)]
    answers = await asyncio.gather(*(store.accept(row) for row in rows))
    winner = rows[answers.index(None)]
    assert [answer for answer in answers if answer is not None] == [winner] * 49


# ---------------------------------------------------------------- update and finish


async def test_row_comes_back_whole_when_everything_in_it_is_set(store: Any, make: Any, now: int) -> None:
    request_id = str(uuid.uuid4())
    row = make.row(
        request_id,
        conversation_id=str(uuid.uuid4()),
        user_id="user",
        request_data=rich_request(request_id),
        tags=("a", "b"),
        request_fingerprint="f" * 64,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        owner="team",
    )
    await store.accept(row)
    error = ProviderError(
        request_id=request_id,
        message="no",
        code=ErrorCode.SERVER_ERROR,
        provider="claude",
        rate_limit=RateLimitInfo(retry_after=5),
        field_violations=(Violation(field="a", description="b"),),
    )
    attempt = Attempt(
        provider="claude",
        model="m",
        state=State.FAILED,
        error=error,
        usage=Usage(input_tokens=1, source=UsageSource.ESTIMATED),
        start_time=now,
        duration=7,
        replay_safety=ReplaySafety.PARTIAL_OUTPUT,
    )
    answer = GenerationResult(
        content=(
            TextPart(text="hi"),
            ReasoningPart(text="hm", signature="s"),
            ToolCallPart(name="f"),
            ProviderDataPart(provider_data={"a": None}),
        ),
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3, source=UsageSource.PROVIDER),
        attempts=(attempt,),
        fallback=FallbackInfo(provider="gemini", model="g", reason="down"),
        cost=12,
    )
    ended = make.ended(
        row,
        State.FAILED,
        provider="gemini",
        model="g",
        response_data=answer,
        error=error,
        error_message="no",
        error_code=error.code,
        retry_attempt=1,
        attempts=(attempt, attempt),
        transitions=(*row.transitions, make.transition(State.VALIDATING, Event.REQUEST_FAILED, State.FAILED)),
    )
    assert await store.finish(ended, [], []) == ended
    assert await store.get(request_id) == ended


@pytest.mark.parametrize("unread", [None, {"a": None}, [1, "x"], "text"])
async def test_row_comes_back_when_the_request_could_not_be_read(store: Any, make: Any, unread: Any) -> None:
    row = make.row(state=State.FAILED, error_code=ErrorCode.INVALID_REQUEST, request_data=UnreadRequest(unread=unread))
    await store.accept(row)
    assert await store.get(row.request_id) == row


async def test_get_gives_nothing_when_the_id_is_unknown(store: Any) -> None:
    assert await store.get(str(uuid.uuid4())) is None


async def test_update_writes_the_last_when_several_meet(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    updates = [make.running(row, updated_at=row.updated_at + i) for i in range(20)]
    await asyncio.gather(*(store.update(update) for update in updates))
    assert await store.get(row.request_id) == updates[-1]


async def test_update_is_written_when_nobody_waits_for_it(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    running = make.running(row)
    store.update(running)
    other = make.row()
    await store.accept(other)  # goes into the same batch, or a later one
    assert await store.get(row.request_id) == running


async def test_update_leaves_what_was_fixed_at_acceptance(store: Any, make: Any) -> None:
    row = make.row(user_id="first", tags=("a",))
    await store.accept(row)
    running = make.running(row)
    await store.update(running.model_copy(update={"user_id": "second", "tags": ("b",), "node": "elsewhere"}))
    assert await store.get(row.request_id) == running


async def test_update_changes_nothing_when_the_row_is_terminal(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    ended = await store.finish(make.ended(row), [], [])
    await store.update(make.running(row))
    assert await store.get(row.request_id) == ended


async def test_update_changes_nothing_when_it_meets_the_end_in_one_batch(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    ended = make.ended(row)
    early, end, late = store.update(make.running(row)), asyncio.create_task(store.finish(ended, [], [])), None
    await asyncio.sleep(0)
    late = store.update(make.running(row, State.STREAMING))
    await asyncio.gather(early, end, late)
    assert await store.get(row.request_id) == ended


async def test_update_changes_nothing_when_there_is_no_such_row(store: Any, make: Any) -> None:
    row = make.row()
    await store.update(make.running(row))
    assert await store.get(row.request_id) is None


async def test_finish_writes_row_and_metrics_together(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    metrics = [
        make.metrics(row, success=False, fallback_provider="gemini", retry_count=2),
        make.metrics(
            row,
            provider="gemini",
            is_fallback=True,
            input_tokens=3,
            usage_source=UsageSource.PROVIDER,
            cost_micro_usd=9,
            first_token_latency=4,
            total_duration=8,
        ),
    ]
    ended = make.ended(row)
    assert await store.finish(ended, metrics, []) == ended
    assert await store.get(row.request_id) == ended
    assert await store.list_metrics(row.request_id) == metrics


async def test_finish_has_one_winner_when_ends_race(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    ends = [make.ended(row, state, duration=i) for i, state in enumerate([State.COMPLETED, State.FAILED] * 10)]
    stood = await asyncio.gather(*(store.finish(end, [make.metrics(end)], []) for end in ends))
    assert set(map(repr, stood)) == {repr(stood[0])}
    assert stood[0] in ends
    assert await store.get(row.request_id) == stood[0]
    assert len(await store.list_metrics(row.request_id)) == 1


async def test_finish_returns_the_standing_row_when_it_ended_before(store: Any, make: Any, now: int) -> None:
    row = make.row()
    await store.accept(row)
    first = await store.finish(make.ended(row), [make.metrics(row)], [])
    assert await store.finish(make.ended(row, State.FAILED), [make.metrics(row)], []) == first
    assert len(await store.list_metrics(row.request_id)) == 1


async def test_finish_inserts_when_there_is_no_such_row(store: Any, make: Any) -> None:
    ended = make.ended(make.row())
    assert await store.finish(ended, [make.metrics(ended)], []) == ended
    assert await store.get(ended.request_id) == ended
    assert len(await store.list_metrics(ended.request_id)) == 1


async def test_finish_refuses_alone_when_the_answer_could_not_be_read_again(store: Any, make: Any) -> None:
    bad, good = make.row(), make.row()
    await store.accept(bad)
    await store.accept(good)
    answer = GenerationResult.model_construct(content=(TextPart.model_construct(text="nul \0"),))
    outcomes = await asyncio.gather(
        store.finish(make.ended(bad, response_data=answer), [], []), store.finish(make.ended(good), [], []), return_exceptions=True
    )
    assert isinstance(outcomes[0], CorruptRow)
    assert (outcomes[0].table, outcomes[0].row_id, outcomes[0].column) == ("provider_logs", bad.id, "response_data")
    assert "nul" not in str(outcomes[0])
    assert outcomes[1] == make.ended(good)
    assert await store.get(bad.request_id) == bad


async def test_update_refuses_when_a_field_breaks_the_rules(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    with pytest.raises(CorruptRow, match=r"provider_logs row .*: column retry_attempt is corrupt"):
        await store.update(row.model_copy(update={"retry_attempt": -1}))
    assert await store.get(row.request_id) == row


# ---------------------------------------------------------------- limits


def reservation(request_id: str = "", attempt: int = 1, tokens: int = 100, **fields: Any) -> Reservation:
    values = {"request_id": request_id or str(uuid.uuid4()), "attempt": attempt, "provider": "claude", "model": "m", "tokens": tokens}
    return Reservation(**(values | fields))


async def windows(store: Any) -> dict[LimitType, tuple[int, int]]:
    """Used and reserved of every kind."""
    return {window.limit_type: (window.current_usage, window.reserved) for window in await store.list_windows()}


async def test_reserve_admits_without_a_trace_when_there_are_no_limits(store: Any, now: int) -> None:
    assert await store.reserve(reservation(), {}, now) is None
    assert await store.list_windows() == []


async def test_reserve_counts_in_all_windows_when_it_fits(store: Any, now: int) -> None:
    assert await store.reserve(reservation(), LIMITS, now) is None
    assert await windows(store) == {RPM: (0, 1), TPM: (0, 100), RPD: (0, 1)}


async def test_reserve_counts_in_no_window_when_one_is_full(store: Any, now: int) -> None:
    await store.reserve(reservation(tokens=950), LIMITS, now)
    refused = await store.reserve(reservation(tokens=51), LIMITS, now)
    assert refused.window.limit_type is TPM
    assert refused.retry_after > 0
    assert await windows(store) == {RPM: (0, 1), TPM: (0, 950), RPD: (0, 1)}


async def test_reserve_says_never_when_it_is_over_the_limit_by_itself(store: Any, now: int) -> None:
    refused = await store.reserve(reservation(tokens=1_001), LIMITS, now)
    assert refused.retry_after is None


async def test_reserve_admits_exactly_the_limit_when_many_come_at_once(store: Any, now: int) -> None:
    answers = await asyncio.gather(*(store.reserve(reservation(tokens=0), {RPM: 50}, now) for _ in range(200)))
    assert answers.count(None) == 50
    assert await windows(store) == {RPM: (0, 50)}


async def test_reserve_follows_the_limit_when_it_was_changed(store: Any, now: int) -> None:
    assert await store.reserve(reservation(), {RPM: 1}, now) is None
    assert await store.reserve(reservation(), {RPM: 1}, now) is not None
    assert await store.reserve(reservation(), {RPM: 2}, now) is None
    assert [window.limit_value for window in await store.list_windows()] == [2]


async def test_reserve_counts_once_when_it_is_repeated(store: Any, now: int) -> None:
    wanted = reservation()
    await store.reserve(wanted, LIMITS, now)
    assert await store.reserve(wanted, LIMITS, now) is None
    assert await windows(store) == {RPM: (0, 1), TPM: (0, 100), RPD: (0, 1)}


async def test_reserve_gives_back_the_first_when_an_attempt_goes_elsewhere(store: Any, now: int) -> None:
    first = reservation()
    await store.reserve(first, LIMITS, now)
    await store.reserve(reservation(first.request_id, provider="gemini"), {RPM: 5}, now)
    held = {(window.provider, window.limit_type): window.reserved for window in await store.list_windows()}
    assert held == {("claude", RPM): 0, ("claude", TPM): 0, ("claude", RPD): 0, ("gemini", RPM): 1}


@pytest.mark.parametrize(
    ("requests", "tokens", "expected"),
    [
        (1, 40, {RPM: (1, 0), TPM: (40, 0), RPD: (1, 0)}),
        (1, 250, {RPM: (1, 0), TPM: (250, 0), RPD: (1, 0)}),
        (1, None, {RPM: (1, 0), TPM: (100, 0), RPD: (1, 0)}),
        (0, 0, {RPM: (0, 0), TPM: (0, 0), RPD: (0, 0)}),
    ],
    ids=["fewer", "more", "unknown", "nothing-sent"],
)
async def test_settle_replaces_what_was_reserved(store: Any, now: int, requests: int, tokens: int | None, expected: Any) -> None:
    wanted = reservation()
    await store.reserve(wanted, LIMITS, now)
    await store.settle(Settlement(reservation=wanted, requests=requests, tokens=tokens), now)
    assert await windows(store) == expected
    await store.settle(Settlement(reservation=wanted, requests=requests, tokens=tokens), now)
    assert await windows(store) == expected


async def test_settle_changes_nothing_when_nothing_was_reserved(store: Any, now: int) -> None:
    await store.reserve(reservation(), LIMITS, now)
    await store.settle(Settlement(reservation=reservation()), now)
    assert await windows(store) == {RPM: (0, 1), TPM: (0, 100), RPD: (0, 1)}


async def test_settle_leaves_windows_that_did_not_hold_the_reservation(store: Any, now: int) -> None:
    first = reservation(tokens=10)
    await store.reserve(first, {RPM: 10}, now)
    await store.reserve(reservation(tokens=30), {RPM: 10, TPM: 100}, now)
    await store.settle(Settlement(reservation=first, tokens=10), now)
    assert await windows(store) == {RPM: (1, 1), TPM: (0, 30)}


async def test_settle_lowers_what_is_left_and_never_raises_it(store: Any, now: int) -> None:
    first, second = reservation(tokens=10), reservation(tokens=20)
    for one in (first, second):
        await store.reserve(one, {RPM: 10, TPM: 100}, now)
    await store.settle(Settlement(reservation=first, tokens=10, left={RPM: 3, TPM: 500, RPD: 0}), now)
    # Three are left of ten, and one is reserved; of the tokens there are fewer here than there, and days are not limited.
    assert await windows(store) == {RPM: (6, 1), TPM: (10, 20)}
    await store.settle(Settlement(reservation=second, tokens=20, left={RPM: 9, TPM: 0}), now)
    assert await windows(store) == {RPM: (7, 0), TPM: (100, 0)}
    refused = await store.reserve(reservation(tokens=1), {RPM: 10, TPM: 100}, now)
    assert refused is not None
    assert refused.window.limit_type is TPM
    assert {window.limit_type: window.lowered for window in await store.list_windows()} == {RPM: 5, TPM: 70}


async def test_settle_believes_nothing_of_a_window_that_has_begun_since(store: Any, now: int) -> None:
    late, later = reservation(), now + 24 * 60 * 60 * 1000
    await store.reserve(late, LIMITS, now)
    await store.reserve(reservation(), LIMITS, later)
    await store.settle(Settlement(reservation=late, tokens=1, left={RPM: 0, TPM: 0, RPD: 0}), now)
    assert await windows(store) == {RPM: (1, 1), TPM: (1, 100), RPD: (1, 1)}


async def test_settle_believes_nothing_when_the_reservation_was_settled_before(store: Any, now: int) -> None:
    wanted = reservation()
    await store.reserve(wanted, LIMITS, now)
    await store.settle(Settlement(reservation=wanted, tokens=1), now)
    await store.settle(Settlement(reservation=wanted, tokens=1, left={RPM: 0}), now)
    assert (await windows(store))[RPM] == (1, 0)


async def test_finish_settles_with_the_row(store: Any, make: Any, now: int) -> None:
    row = make.running(make.row())
    await store.accept(row)
    wanted = reservation(row.request_id)
    await store.reserve(wanted, LIMITS, now)
    await store.finish(make.ended(row), [make.metrics(row)], [Settlement(reservation=wanted, tokens=7)])
    assert await windows(store) == {RPM: (1, 0), TPM: (7, 0), RPD: (1, 0)}


async def test_finish_settles_what_was_reserved_after_another_hand_had_ended_the_request(store: Any, make: Any, now: int) -> None:
    row = make.running(make.row())
    await store.accept(row)
    await store.finish(make.ended(row), [], [])
    wanted = reservation(row.request_id)
    await store.reserve(wanted, LIMITS, now)
    await store.finish(make.ended(row), [], [Settlement(reservation=wanted, tokens=7)])
    assert await windows(store) == {RPM: (1, 0), TPM: (7, 0), RPD: (1, 0)}


async def test_finish_settles_what_was_forgotten(store: Any, make: Any, now: int) -> None:
    row = make.running(make.row())
    await store.accept(row)
    await store.reserve(reservation(row.request_id, attempt=1), LIMITS, now)
    await store.reserve(reservation(row.request_id, attempt=2), LIMITS, now)  # whose call never began
    await store.finish(make.ended(row), [], [])
    assert await windows(store) == {RPM: (1, 0), TPM: (100, 0), RPD: (1, 0)}


async def test_list_windows_gives_those_that_are_asked_for(store: Any, now: int) -> None:
    for provider, model in [("claude", "m"), ("claude", "n"), ("gemini", "m")]:
        await store.reserve(reservation(provider=provider, model=model), {RPM: 5}, now)
    assert [(w.provider, w.model) for w in await store.list_windows()] == [("claude", "m"), ("claude", "n"), ("gemini", "m")]
    assert [(w.provider, w.model) for w in await store.list_windows("claude")] == [("claude", "m"), ("claude", "n")]
    assert [(w.provider, w.model) for w in await store.list_windows("claude", "n")] == [("claude", "n")]
    assert [(w.provider, w.model) for w in await store.list_windows(model="m")] == [("claude", "m"), ("gemini", "m")]


# ---------------------------------------------------------------- recovery


async def test_recover_ends_requests_when_their_node_is_dead(store: Any, make: Any, now: int) -> None:
    row = make.row(node="dead")
    await store.accept(row)
    done = Attempt(provider="claude", model="m", state=State.FAILED, start_time=now, duration=3, replay_safety=ReplaySafety.NOT_SENT)
    going = Attempt(provider="gemini", model="g", state=State.STREAMING, start_time=now)
    await store.update(make.running(row, State.STREAMING, provider="gemini", attempts=(done, going)))
    ended = await store.recover("here", now + 100, salvaged)
    assert ended == [await store.get(row.request_id)]
    end = ended[0]
    assert (end.state, end.error_code, end.end_time, end.duration) == (State.FAILED, ErrorCode.INTERRUPTED, now + 100, 100)
    assert end.error is not None
    assert (end.error.code, end.error.message) == (ErrorCode.INTERRUPTED, end.error_message)
    assert end.attempts[0] == done
    assert (end.attempts[1].state, end.attempts[1].duration) == (State.FAILED, 100)
    assert end.attempts[1].replay_safety is ReplaySafety.UNCERTAIN
    last = end.transitions[-1]
    assert (last.from_state, last.event, last.to_state, last.time) == (State.STREAMING, Event.REQUEST_FAILED, State.FAILED, now + 100)
    assert await store.recover("here", now + 200, salvaged) == []


async def test_recover_leaves_requests_of_the_living_and_those_that_ended(store: Any, make: Any, now: int) -> None:
    mine, ended = make.row(), make.row(node="dead")
    await store.accept(mine)
    await store.accept(ended)
    await store.finish(make.ended(ended), [], [])
    assert await store.recover("here", now, salvaged) == []
    assert await store.get(mine.request_id) == mine


@pytest.mark.parametrize("state", [state for state in State if state not in (State.COMPLETED, State.FAILED)])
async def test_recover_ends_a_request_whatever_its_state(store: Any, make: Any, now: int, state: State) -> None:
    await store.accept(make.row(node="dead", state=state))
    assert [row.state for row in await store.recover("here", now, salvaged)] == [State.FAILED]


async def test_finish_loses_when_the_request_was_recovered(store: Any, make: Any, now: int) -> None:
    row = make.row(node="dead")
    await store.accept(row)
    recovered = await store.recover("here", now, salvaged)
    assert [await store.finish(make.ended(row), [make.metrics(row)], [])] == recovered
    assert await store.list_metrics(row.request_id) == []


# ---------------------------------------------------------------- lists


async def test_list_requests_pages_newest_first_when_times_are_equal(store: Any, make: Any, now: int) -> None:
    rows = [make.row(created_at=now + i // 3) for i in range(11)]
    for row in rows:
        await store.accept(row)
    expected = sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
    seen: list[Any] = []
    before = None
    while True:
        page = await listed(store, RequestQuery(page_size=2, before=before))
        seen += page[:2]
        if len(page) < 3:
            break
        before = (page[1].created_at, page[1].id)
        await store.accept(make.row(created_at=now + 99))  # what is new does not shift the pages
    assert seen == expected


async def test_list_requests_gives_those_that_match(store: Any, make: Any, now: int) -> None:
    conversation = str(uuid.uuid4())
    special = make.row(
        created_at=now + 50,
        provider="gemini",
        model="g",
        user_id="u",
        conversation_id=conversation,
        tags=("x", "needle"),
        state=State.FAILED,
        error_code=ErrorCode.TIMEOUT,
    )
    await store.accept(make.row(tags=("need",)))
    await store.accept(special)
    await store.accept(make.row(created_at=now + 90))
    for asked in (
        {"state": State.FAILED},
        {"provider": "gemini"},
        {"model": "g"},
        {"user_id": "u"},
        {"conversation_id": conversation},
        {"tag": "needle"},
        {"error_code": ErrorCode.TIMEOUT},
        {"start_time": now + 50, "end_time": now + 90},
        {"tag": "x", "provider": "gemini", "start_time": now},
    ):
        assert await listed(store, RequestQuery.model_validate(asked)) == [special], asked
    assert await listed(store, RequestQuery(tag="needle", provider="claude")) == []
    assert await listed(store, RequestQuery(end_time=now)) == []
    assert len(await listed(store)) == 3


# ---------------------------------------------------------------- providers


def provider_row(name: str = "local", **fields: Any) -> ProviderRow:
    values = {
        "id": str(uuid.uuid4()),
        "provider": name,
        "dialect": "openai",
        "api_url": "http://127.0.0.1:8080/v1",
        "default_model": "small",
        "created_at": 5,
        "updated_at": 6,
    }
    return ProviderRow.model_validate(values | fields)


async def test_list_providers_shows_the_built_in_ones_when_the_store_is_new(store: Any) -> None:
    rows = await store.list_providers()
    assert [(row.provider, row.dialect, row.enabled, row.priority) for row in rows] == [
        ("claude", Dialect.CLAUDE, True, 1),
        ("gemini", Dialect.GEMINI, True, 2),
        ("openai", Dialect.OPENAI, True, 3),
    ]
    assert [row.api_url for row in rows] == [
        "https://api.anthropic.com",
        "https://generativelanguage.googleapis.com",
        "https://api.openai.com/v1",
    ]


async def test_create_provider_keeps_everything(store: Any) -> None:
    row = provider_row(
        enabled=False,
        priority=0,
        api_key_encrypted="sealed",
        max_retries=1,
        timeout_ms=5,
        rate_limit_rpm=1,
        rate_limit_tpm=2,
        rate_limit_rpd=3,
        fallback_providers=("claude", "gemini"),
        config=ProviderSettings(api="responses", zone="Europe/Berlin", circuit_failures=1),
    )
    assert await store.create_provider(row)
    assert (await store.list_providers())[0] == row


async def test_create_provider_refuses_when_the_name_is_taken(store: Any) -> None:
    before = await store.list_providers()
    assert not await store.create_provider(provider_row("claude"))
    assert await store.list_providers() == before


async def test_update_provider_replaces_the_row(store: Any) -> None:
    await store.create_provider(provider_row(rate_limit_rpm=5))
    changed = provider_row(priority=7, default_model="large")
    assert await store.update_provider(changed)
    assert changed in await store.list_providers()
    assert not await store.update_provider(provider_row("unknown"))


async def test_delete_provider_removes_the_row(store: Any) -> None:
    assert await store.delete_provider("gemini")
    assert not await store.delete_provider("gemini")
    assert [row.provider for row in await store.list_providers()] == ["claude", "openai"]


async def test_delete_provider_takes_its_counters_along_and_no_others(store: Any, now: int) -> None:
    for provider in ("claude", "gemini"):
        await store.reserve(held := reservation(provider=provider), LIMITS, now)
        await store.settle(Settlement(reservation=held, tokens=1), now)
    assert await store.delete_provider("gemini")
    assert {window.provider for window in await store.list_windows()} == {"claude"}


async def test_delete_provider_changes_nothing_when_rows_refer_to_it(store: Any, make: Any, now: int) -> None:
    row = make.row(provider="gemini")
    await store.reserve(reservation(provider="gemini"), LIMITS, now)
    # The row is on its way when the provider is to go: what was asked for first is done first.
    accepted = asyncio.ensure_future(store.accept(row))
    await asyncio.sleep(0)
    assert not await store.delete_provider("gemini")
    assert await accepted is None
    await store.finish(make.ended(row), [make.metrics(row, provider="openai")], [])
    assert not await store.delete_provider("openai")
    assert [row.provider for row in await store.list_providers()] == ["claude", "gemini", "openai"]
    assert await store.list_windows("gemini") != []


async def test_count_requests_of_counts_logs_and_metrics(store: Any, make: Any) -> None:
    row = make.row(provider="gemini")
    await store.accept(row)
    await store.finish(make.ended(row), [make.metrics(row, provider="claude"), make.metrics(row, provider="gemini")], [])
    assert [await store.count_requests_of(name) for name in ("claude", "gemini", "openai")] == [1, 2, 0]


# ---------------------------------------------------------------- life


async def test_ping_is_silent_when_the_store_is_open(store: Any) -> None:
    assert await store.ping() is None


async def test_every_method_raises_when_the_store_is_closed(store: Any, make: Any, now: int) -> None:
    await store.close()
    row = make.row()
    for call in (
        lambda: store.ping(),
        lambda: store.accept(row),
        lambda: store.update(row),
        lambda: store.finish(make.ended(row), [], []),
        lambda: store.get(row.request_id),
        lambda: store.reserve(reservation(), LIMITS, now),
        lambda: store.settle(Settlement(reservation=reservation()), now),
        lambda: store.recover("here", now, salvaged),
        lambda: listed(store),
        lambda: store.list_providers(),
        lambda: store.list_windows(),
        lambda: store.create_provider(provider_row()),
    ):
        with pytest.raises(StoreUnavailable):
            await call()


async def test_rows_are_there_when_the_store_is_opened_again(store: Any, make: Any) -> None:
    row = make.row()
    await store.accept(row)
    running = make.running(row)
    store.update(running)
    await store.close()
    await store.open()
    assert await store.get(row.request_id) == running
