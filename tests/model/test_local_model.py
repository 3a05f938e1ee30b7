"""A smoke test on a real model: every part is real, and so small a model says little that can be relied on."""

import json
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.v1 import generation_service_pb2, generation_service_pb2_grpc, lifecycle_pb2, message_pb2, request_pb2, result_pb2
from headrace_server.app import running
from headrace_server.config import FileProvider, Settings
from headrace_server.domain.provider import Dialect
from headrace_server.local_model import MODEL, LocalModel

pytestmark = pytest.mark.model

PROVIDERS: dict[str, tuple[Dialect, str, dict[str, Any]]] = {
    "chat": (Dialect.OPENAI, "/v1", {}),
    "responses": (Dialect.OPENAI, "/v1", {"api": "responses"}),
    "messages": (Dialect.CLAUDE, "", {}),
}


def test_server_ends_when_the_context_is_left(local_model: LocalModel) -> None:
    with LocalModel(local_model._wheels) as second:
        with urllib.request.urlopen(second.url + "/health", timeout=10) as response:
            assert json.load(response) == {"status": "ok"}
        process = second._process
        assert process is not None
        assert second.url != local_model.url
    assert process.returncode == 0


async def ask(local_model: LocalModel, folder: Path, form: str, stream: bool, **fields: Any) -> Any:
    """The result of one request to the real model, in this form of its API."""
    dialect, path, more = PROVIDERS[form]
    provider = FileProvider(dialect=dialect, api_url=local_model.url + path, default_model=MODEL, **more)
    settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{folder}/model.db", drain_timeout=1, providers={"small": provider})
    message = message_pb2.ChatMessage(role=message_pb2.MESSAGE_ROLE_USER, content=[message_pb2.ContentPart(text="What does a river do?")])
    asked = request_pb2.GenerateRequest(provider="small", messages=[message], temperature=0, **fields)
    async with running(settings) as service, grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub: Any = generation_service_pb2_grpc.GenerationServiceStub(channel)
        if not stream:
            return (await stub.Generate(asked, timeout=50)).result
        call = stub.StreamGenerate(iter([generation_service_pb2.StreamGenerateRequest(generate=asked)]), timeout=50)
        return [event async for response in call for event in response.events][-1].completed


def text_of(result: Any) -> str:
    return "".join(part.text for part in result.content)


@pytest.mark.parametrize("stream", [pytest.param(True, id="stream"), pytest.param(False, id="whole", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", PROVIDERS)
async def test_a_real_answer_is_cut_at_the_limit_of_tokens(local_model: LocalModel, tmp_path: Path, form: str, stream: bool) -> None:
    result = await ask(local_model, tmp_path, form, stream, max_tokens=5)

    if form == "responses":  # this server calls such an answer completed, and what a provider says is what the caller gets
        assert result.native_finish_reason == "completed"
    else:
        assert result.finish_reason == result_pb2.FINISH_REASON_LENGTH
    assert result.usage.output_tokens == 5
    assert text_of(result)


@pytest.mark.parametrize("stream", [pytest.param(True, id="stream"), pytest.param(False, id="whole", marks=pytest.mark.slow)])
@pytest.mark.slow
@pytest.mark.parametrize("form", ["chat", "messages"])  # the Responses API has no stop sequences
async def test_a_real_answer_ends_at_a_stop_sequence(local_model: LocalModel, tmp_path: Path, form: str, stream: bool) -> None:
    whole = text_of(await ask(local_model, tmp_path, form, stream, max_tokens=24))
    stop = whole.split()[4]

    result = await ask(local_model, tmp_path, form, stream, max_tokens=24, stop_sequences=[f" {stop}"])

    assert result.finish_reason == result_pb2.FINISH_REASON_STOP
    assert text_of(result).strip() == whole.partition(f" {stop}")[0].strip()


@pytest.mark.parametrize("stream", [pytest.param(True, id="stream"), pytest.param(False, id="whole", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", PROVIDERS)
async def test_real_answer_arrives_whole_with_usage_and_record(local_model: LocalModel, tmp_path: Path, form: str, stream: bool) -> None:
    dialect, path, more = PROVIDERS[form]
    provider = FileProvider(dialect=dialect, api_url=local_model.url + path, default_model=MODEL, **more)
    database = tmp_path / "model.db"
    settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{database}", drain_timeout=1, providers={"small": provider})
    message = message_pb2.ChatMessage(role=message_pb2.MESSAGE_ROLE_USER, content=[message_pb2.ContentPart(text="Say hello to a river.")])
    asked = request_pb2.GenerateRequest(provider="small", messages=[message], max_tokens=24, temperature=0)
    async with running(settings) as service, grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub: Any = generation_service_pb2_grpc.GenerationServiceStub(channel)
        if stream:
            call = stub.StreamGenerate(iter([generation_service_pb2.StreamGenerateRequest(generate=asked)]), timeout=50)
            events = [event async for response in call for event in response.events]
            result = events[-1].completed
            reached = [event.transition.to_state for event in events if event.HasField("transition")]
            assert reached == [
                lifecycle_pb2.REQUEST_STATE_VALIDATING,
                lifecycle_pb2.REQUEST_STATE_REQUESTING,
                lifecycle_pb2.REQUEST_STATE_STREAMING,
                lifecycle_pb2.REQUEST_STATE_COMPLETED,
            ]
            chunks = [event.chunk for event in events if event.HasField("chunk")]
            assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
            assert "".join(chunk.text for chunk in chunks) == "".join(part.text for part in result.content)
        else:
            result = (await stub.Generate(asked, timeout=50)).result
    text = "".join(part.text for part in result.content)
    assert text.strip()
    assert result.finish_reason in (result_pb2.FINISH_REASON_STOP, result_pb2.FINISH_REASON_LENGTH)
    assert 0 < result.usage.output_tokens <= 25
    assert result.usage.input_tokens > 0
    with closing(sqlite3.connect(database)) as connection:
        (row,) = connection.execute(
            "SELECT state, model, success, output_tokens FROM provider_logs JOIN provider_metrics USING (request_id, model)"
        )
    assert row == ("completed", MODEL, 1, result.usage.output_tokens)
