"""Bytes that were made to hurt, through every decoder and over a real connection: they end in a fault or in an answer that can be stored,
in time and memory that grow with their size and no faster.

The folder `nasty` holds small bodies of answers: streams (`.sse`), whole ones (`.json`), and what is neither (`.bin`). The large ones are
made here.
"""

import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, Subreason
from headrace_server.domain.events import Delta
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.http import make_transport
from headrace_server.providers.httpx_api import httpx
from headrace_server.providers.sse import MAX_EVENT
from headrace_server.providers.upstream import HttpCall, HttpUpstream
from support.exchanges import CASES, Case, Said, ToolUse, sse, tool
from support.reading import Reading, check_storable

FILES = sorted(path for path in (Path(__file__).parent / "nasty").iterdir() if not path.name.startswith("."))
MANY = 20_000
SECONDS = 8.0
"""For MANY pieces, which take less than one; what grows with the square of their number takes longer than this."""
TIMES_ITS_SIZE = 100
"""Bytes of memory for a byte of an answer whose parts are as small as can be: each becomes objects."""
Json = dict[str, Any]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = "canary-7f3a9d-key"

dialects = tool("dialects")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)


# ---------------------------------------------------------------- the decoders


@every_case
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_nasty_bytes_end_in_a_fault_or_in_an_answer_that_can_be_stored(case: Case, file: Path) -> None:
    body = file.read_bytes()
    Reading(case).stream([body]).check()
    Reading(case).stream([body[i : i + 1] for i in range(len(body))]).check()
    Reading(case).whole(body).check()


@every_case
@pytest.mark.parametrize("levels", [24, 25, 26, 63, 64, 65, *range(100, 1_000, 25)])
def test_depth_is_carried_or_refused_whatever_it_is(case: Case, levels: int) -> None:
    deep = '{"type":"brand_new","in":' * levels + "1" + "}" * levels
    for said in (Said(texts=("TEXT",)), Said(calls=(ToolUse(arguments='{"DEEP": 1}'),))):
        body = json.dumps(case.whole_json(said)).replace('"TEXT"', deep)
        Reading(case).whole(body.replace('{\\"DEEP\\": 1}', json.dumps(deep)[1:-1]).replace('{"DEEP": 1}', deep).encode()).check()
    Reading(case).whole(deep.encode()).check()
    Reading(case).events([deep.encode()]).check()


# ---------------------------------------------------------------- large ones


Make = Callable[[Case, int], list[bytes]]


def many_texts(case: Case, many: int) -> list[bytes]:
    return case.stream(Said(texts=["x"] * many))


def many_thoughts(case: Case, many: int) -> list[bytes]:
    return case.stream(Said(texts=("x",), reasoning=["x"] * many))


def many_calls(case: Case, many: int) -> list[bytes]:
    if case.title == "openai, responses":
        many //= 4  # its last event tells all of them again
    return case.stream(Said(calls=[ToolUse(id=f"call_{number}") for number in range(many)]))


def many_unknown_events(case: Case, many: int) -> list[bytes]:
    return [sse(case.unknown)] * many + case.stream(Said(texts=("x",)))


def one_long_text(case: Case, many: int) -> list[bytes]:
    return case.stream(Said(texts=("x" * (many * 15),)))


def long_arguments(case: Case, many: int) -> list[bytes]:
    return case.stream(Said(calls=(ToolUse(arguments=json.dumps({"x": "y" * (many * 15)})),)))


def claude_blocks(delta: Json, block: Json, many: int) -> list[bytes]:
    begin = [{"type": "message_start", "message": {}}, {"type": "content_block_start", "index": 0, "content_block": block}]
    more = [sse({"type": "content_block_delta", "index": 0, "delta": delta})] * many
    end = [{"type": "content_block_stop", "index": 0}, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}]
    return [*map(sse, begin), *more, *map(sse, [*end, {"type": "message_stop"}])]


def citations(case: Case, many: int) -> list[bytes]:
    return claude_blocks({"type": "citations_delta", "citation": {"a": 1}}, {"type": "text"}, many)


def pieces_of_an_unknown_text(case: Case, many: int) -> list[bytes]:
    return claude_blocks({"type": "d", "x": "y" * 50}, {"type": "brand_new", "x": ""}, many)


def pieces_of_an_unknown_list(case: Case, many: int) -> list[bytes]:
    return claude_blocks({"type": "d", "x": [1]}, {"type": "brand_new", "x": []}, many)


def parts_in_one_event(case: Case, many: int) -> list[bytes]:
    return [sse({"candidates": [{"content": {"parts": [{"x": 1}] * many}, "finishReason": "STOP"}]})]


def chat_deltas(*deltas: Json) -> list[bytes]:
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    return [*map(sse, [*chunks, {"choices": [{"finish_reason": "stop"}]}])]


def details_with_fields_of_their_own(case: Case, many: int) -> list[bytes]:
    return chat_deltas(*({"reasoning": "x", "reasoning_details": [{"text": "x", f"k{n}": n}]} for n in range(many)))


def calls_without_a_number(case: Case, many: int) -> list[bytes]:
    return chat_deltas(*({"tool_calls": [{"id": f"c{n}", "function": {"name": "f"}}]} for n in range(many)))


def arguments_before_a_name(case: Case, many: int) -> list[bytes]:
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": "x" * 20}}]}] * many
    return chat_deltas(*pieces, {"tool_calls": [{"index": 0, "function": {"name": "f"}}]})


def responses_events(*events: Json) -> list[bytes]:
    return [*map(sse, [*events, {"type": "response.completed", "response": {"status": "completed"}}])]


def part_delta(number: int) -> Json:
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": number, "delta": "x"}


def parts_that_end_again_and_again(case: Case, many: int) -> list[bytes]:
    part = {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "y"}}
    item = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": [{"type": "output_text"}]}}
    return responses_events(*(part_delta(n) for n in range(many)), *[part] * many, *[item] * many)


def annotations(case: Case, many: int) -> list[bytes]:
    more = ({"type": "response.output_text.annotation.added", "output_index": 0, "annotation": {"n": n}} for n in range(many))
    return responses_events(part_delta(0), *more)


OF_ALL: tuple[Make, ...] = (many_texts, many_thoughts, many_calls, many_unknown_events, one_long_text, long_arguments)
OF_ONE: dict[str, tuple[Make, ...]] = {
    "claude": (citations, pieces_of_an_unknown_text, pieces_of_an_unknown_list),
    "gemini": (parts_in_one_event,),
    "openai, chat": (details_with_fields_of_their_own, calls_without_a_number, arguments_before_a_name),
    "openai, responses": (parts_that_end_again_and_again, annotations),
}
LARGE = [pytest.param(case, make, id=f"{case.title}, {make.__name__}") for case in CASES for make in (*OF_ALL, *OF_ONE.get(case.title, ()))]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "make"), LARGE)
def test_a_large_answer_takes_time_by_its_size(case: Case, make: Make) -> None:
    pieces = make(case, MANY)
    began = time.perf_counter()
    reading = Reading(case).stream(pieces)
    parts = reading.decoder.answer.content()
    took = time.perf_counter() - began
    assert reading.fault is None
    assert parts
    assert took < SECONDS, f"{sum(map(len, pieces)):,} bytes took {took:.1f} s"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "make"), LARGE)
def test_a_large_answer_takes_memory_by_its_size(case: Case, make: Make) -> None:
    pieces = make(case, MANY // 10)
    size = sum(map(len, pieces))
    tracemalloc.start()
    try:
        reading = Reading(case).stream(pieces)
        parts = reading.decoder.answer.content()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parts
    assert peak < TIMES_ITS_SIZE * size + 2**20, f"{size:,} bytes took {peak:,} bytes of memory"


@pytest.mark.slow
@every_case
def test_a_million_events_are_read_in_a_minute(case: Case) -> None:
    began = time.perf_counter()
    text = case.stream(Said(texts=("x",)))
    reading = Reading(case).stream([b"".join([sse(case.unknown)] * 1_000_000), *text])
    assert reading.fault is None
    assert time.perf_counter() - began < 60


@every_case
def test_an_event_above_the_cap_is_refused_by_its_size(case: Case) -> None:
    reading = Reading(case).stream(case.stream(Said(texts=("x" * MAX_EVENT,))))
    assert reading.fault is not None
    assert reading.fault.subreason == Subreason.EVENT_TOO_LARGE


# ---------------------------------------------------------------- over a connection


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_transport() as client:
        yield client


async def call(case: Case, client: httpx.AsyncClient, url: str) -> tuple[HttpCall, list[Delta], Fault | None]:
    """One call, to its end."""
    request: GenerateRequest = dialects.request({"stream": True})
    provider: Provider = case.provider.model_copy(update={"api_url": url})
    upstream = HttpUpstream(client, lambda _: case.dialect, lambda: 1)
    under_way = await upstream.call(request, provider, "m", traceparent=TRACEPARENT, connect_timeout=5)
    deltas: list[Delta] = []
    fault = None
    try:
        while (more := await under_way.read()) is not None:
            deltas += more
    except ProviderFault as error:
        fault = error.fault
    finally:
        await under_way.close()
    return under_way, deltas, fault


@every_case
async def test_nasty_bytes_over_a_connection_end_in_a_fault_or_in_an_answer(
    case: Case, client: httpx.AsyncClient, peer: Callable[..., Awaitable[Any]]
) -> None:
    bodies = [path.read_bytes() for path in FILES]
    number = iter(bodies)

    async def answer(exchange: Any) -> None:
        await exchange.answer(next(number))

    server = await peer(answer)
    for path in FILES:
        under_way, deltas, fault = await call(case, client, server.url)
        check_storable(under_way.answer, fault, deltas)
        assert fault is None or fault.message, path.name
        if fault is not None:
            assert "could not be read (" not in fault.message, f"{path.name}: the decoder raised something else than a ProviderFault"


@every_case
@pytest.mark.parametrize("status", ["401 Unauthorized", "200 OK"])
async def test_a_key_that_the_provider_repeats_stays_in_the_house(
    case: Case, status: str, client: httpx.AsyncClient, peer: Callable[..., Awaitable[Any]]
) -> None:
    errors = [text for (code, text), meaning in case.errors.items() if code == 401 or meaning is ErrorCode.AUTHENTICATION_ERROR]
    bodies = (
        [text.replace("no", f"Incorrect key {KEY}").encode() for text in errors]
        if status.startswith("401")
        else [
            sse(case.error | {"message": KEY, "error": {"message": KEY, "type": KEY, "code": KEY}}),
            sse(f'{{"{KEY}'),
        ]
    )
    waiting = list(bodies)

    async def answer(exchange: Any) -> None:
        await exchange.answer(waiting.pop(0), status=status)

    server = await peer(answer)
    for _ in bodies:
        try:
            _, _, fault = await call(case, client, server.url)
        except ProviderFault as error:
            fault = error.fault
        assert fault is not None
        assert KEY not in repr(fault)
        assert KEY not in server.exchanges[-1].head.decode().splitlines()[0]
        assert KEY.encode() not in server.exchanges[-1].body
