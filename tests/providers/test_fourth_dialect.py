"""A dialect is added by the lines that CONTRIBUTING.md shows, and the service serves it: nothing else is touched.

The name of a dialect is also part of the API and of the table of providers; that part of the recipe (a value in the proto file, a
migration) is not done here, so the provider comes from the configuration.
"""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from headrace.v1 import generation_service_pb2_grpc, result_pb2
from headrace_server import app
from headrace_server.config import Settings
from headrace_server.domain.provider import Dialect
from headrace_server.providers.registry import DIALECTS
from support.exchanges import Said, ToolUse, sse, tiny_stream, tiny_whole
from support.service import command, details, events_of, kinds, request, text_of
from support.tiny_dialect import Tiny

LINES = re.compile(r"<!-- dialect -->\n```python\n# domain/provider.py.*\n(.*)\n# providers/registry.py.*\n(.*)\n```")
KEY = "canary-7f3a9d-key"


@pytest.fixture
def dialect(monkeypatch: pytest.MonkeyPatch) -> Dialect:
    """The dialect, added by the lines of CONTRIBUTING.md."""
    found = LINES.search((Path(__file__).parents[2] / "CONTRIBUTING.md").read_text())
    assert found is not None
    name, _, value = found[1].partition(" = ")
    # An enumeration cannot be opened again; this is the member that the line would make.
    member = str.__new__(Dialect, value.strip('"'))
    member._name_, member._value_ = name, value.strip('"')
    for row, added in eval(f"{{{found[2]}}}", {"Name": SimpleNamespace(**{name: member}), "Tiny": Tiny}).items():
        monkeypatch.setitem(DIALECTS, row, added)  # type: ignore[arg-type]
        monkeypatch.setitem(app.DEFAULT_URLS, row[0], added.default_api_url)
    return member


class Serving:
    """The service, its one provider, and what that provider is to answer."""

    def __init__(self, channel: grpc.aio.Channel, peer: Any, answers: list[bytes]) -> None:
        self.stub: Any = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self.peer = peer
        self.answers = answers


@pytest.fixture
async def serving(tmp_path: Path, dialect: Dialect, peer: Callable[..., Awaitable[Any]]) -> Any:
    answers: list[bytes] = []

    async def answer(exchange: Any) -> None:
        await exchange.answer(answers.pop(0))

    provider = await peer(answer)
    table = {"dialect": dialect, "api_url": provider.url, "default_model": "tiny-1", "api_key": KEY}
    settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{tmp_path}/headrace.db", providers={"fourth": table})
    async with app.running(settings) as running, grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield Serving(channel, provider, answers)


async def test_a_fourth_dialect_streams_when_its_lines_are_added(serving: Serving) -> None:
    serving.answers.append(b"".join(tiny_stream(Said(texts=("from ", "the ", "fourth"), calls=(ToolUse(),)))))
    events = await events_of(serving.stub.StreamGenerate(iter([command(request("hello", provider="fourth"))])))
    assert text_of(events) == "from the fourth"
    result = events[-1].completed
    assert kinds(events)[-1] == "completed"
    assert result.finish_reason == result_pb2.FINISH_REASON_TOOL_CALLS
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 7)
    (exchange,) = serving.peer.exchanges
    assert exchange.head.startswith(b"POST /say ")
    assert exchange.headers["x-key"] == KEY
    assert b"hello" in exchange.body
    assert b'"model":"tiny-1"' in exchange.body


async def test_a_fourth_dialect_answers_whole_when_its_lines_are_added(serving: Serving) -> None:
    serving.answers.append(json.dumps(tiny_whole(Said(texts=("whole",)))).encode())
    response = await serving.stub.Generate(request("hello", provider="fourth"))
    assert [part.text for part in response.result.content] == ["whole"]


async def test_what_a_fourth_dialect_cannot_express_is_refused_by_name(serving: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await serving.stub.Generate(request("hello", provider="fourth", provider_options={"temperature": 1}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)["BadRequest"].field_violations[0].field == "provider_options.temperature"
    assert serving.peer.exchanges == []


async def test_a_fourth_dialects_cut_stream_is_no_success(serving: Serving) -> None:
    serving.answers.append(sse({"kind": "text", "text": "half"}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(serving.stub.StreamGenerate(iter([command(request("hello", provider="fourth"))])))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
