"""`headrace demo`: a model and the service on this machine, one streamed answer, and the record that it left. It cleans up after itself."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc.aio
import typer

from headrace.v1 import generation_service_pb2, generation_service_pb2_grpc, message_pb2, request_pb2
from headrace_server import app
from headrace_server.cli.events import EventPrinter
from headrace_server.config import FileProvider, Settings
from headrace_server.domain.provider import Dialect
from headrace_server.fake_provider import FakeProvider, Step
from headrace_server.local_model import MODEL, LocalModel, ModelUnavailable, install
from headrace_server.program import StartError, log_warnings, run

PROVIDER = "local"
MAX_TOKENS = 120
COLUMNS = ("request_id", "state", "provider", "model", "duration", "retry_attempt", "trace_id")
METRICS = ("input_tokens", "output_tokens", "usage_source", "first_token_latency", "chunks_received")


def main(prompt: str, *, fake: bool = False, serve: bool = False) -> int:
    """Run the demo; the exit code. `fake`: without a real model. `serve`: go on until Ctrl-C."""
    log_warnings()
    try:
        return run(_demo(prompt, fake=fake, serve=serve))
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143
    except StartError as error:
        typer.echo(f"headrace: {error}", err=True)
        return 1


async def _demo(prompt: str, *, fake: bool, serve: bool) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as scratch:
        database = Path(scratch) / "headrace.db"
        async with _model(fake=fake) as (model, api_url):
            provider = FileProvider(dialect=Dialect.OPENAI, api_url=api_url, default_model=model, priority=0)
            settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{database}", drain_timeout=1, providers={PROVIDER: provider})
            async with app.running(settings) as service:
                address = f"127.0.0.1:{service.port}"
                _title(f"Headrace listens on {address}; the model {model} answers behind it.")
                done = await _generate(address, prompt)
                _title("The record that it left, in the database:")
                _show_record(database)
                _title("The same from outside, by server reflection" + (":" if serve else " (`make demo SERVE=1` keeps serving):"))
                _show_grpcurl(address, database)
                _title("With a real key, three commands:")
                for command in (
                    "export ANTHROPIC_API_KEY=sk-ant-…",
                    f"{_headrace()} serve &",
                    f"{_headrace()} generate {_quoted(prompt)} --provider claude",
                ):
                    typer.echo(f"  {command}")
                if serve:
                    _title("Serving until Ctrl-C.")
                    sys.stdout.flush()
                    await _told_to_stop()
    return 0 if done else 1


@asynccontextmanager
async def _model(*, fake: bool) -> AsyncIterator[tuple[str, str]]:
    """Something that answers: the name of a model, and the base URL where it is served."""
    if not fake:
        try:
            with LocalModel(await asyncio.to_thread(install, _title)) as model:
                yield MODEL, model.url + "/v1"
                return
        except ModelUnavailable as error:
            _title(f"No real model here: {error}. The fake provider answers instead.")
    async with FakeProvider([Step(pace_ms=30, times=0)]) as provider:
        yield "fake-model", provider.api_url("openai")


async def _generate(address: str, prompt: str) -> bool:
    """Stream one answer to the terminal; whether it was completed."""
    content = [message_pb2.ContentPart(text=prompt)]
    asked = request_pb2.GenerateRequest(
        provider=PROVIDER,
        messages=[message_pb2.ChatMessage(role=message_pb2.MESSAGE_ROLE_USER, content=content)],
        max_tokens=MAX_TOKENS,
        temperature=0,
    )
    typer.echo(f"  {_headrace()} generate {_quoted(prompt)} --states --provider {PROVIDER} --server {address}\n")
    printer, completed = EventPrinter(states=True, notes_to_stdout=True), False
    async with grpc.aio.insecure_channel(address) as channel:
        call = generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
            iter([generation_service_pb2.StreamGenerateRequest(generate=asked)])
        )
        try:
            async for response in call:
                for event in response.events:
                    printer.show(event)
                    sys.stdout.flush()
                    completed = event.HasField("completed")
        except grpc.aio.AioRpcError as error:
            typer.echo(f"headrace: {error.code().name}: {error.details()}", err=True)
    return completed


def _show_record(database: Path) -> None:
    query = (
        f"SELECT {', '.join(COLUMNS)}, {', '.join(METRICS)} FROM provider_logs JOIN provider_metrics USING (request_id, provider, model)"
    )
    typer.echo(f"  {query}\n")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for row in connection.execute(query):
            for name, value in zip((*COLUMNS, *METRICS), row, strict=True):
                typer.echo(f"  {name:20} {value}")


def _show_grpcurl(address: str, database: Path) -> None:
    asked = {"generate": {"provider": PROVIDER, "messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "Hello!"}]}]}}
    for command in (
        f"grpcurl -plaintext {address} list",
        f"grpcurl -plaintext -d '{json.dumps(asked)}' {address} headrace.v1.GenerationService/StreamGenerate",
        f"grpcurl -plaintext {address} headrace.v1.RequestService/ListRequests",
        f"{_headrace()} request list --server {address}",
        f"sqlite3 {database} 'SELECT state, provider, model, duration FROM provider_logs'",
    ):
        typer.echo(f"  {command}")


def _title(text: str) -> None:
    typer.secho(f"\n{text}", bold=True)
    sys.stdout.flush()  # before what pip says on stderr


def _headrace() -> str:
    """How the command is called from here."""
    return "headrace" if shutil.which("headrace") else os.path.relpath(sys.argv[0])


def _quoted(text: str) -> str:
    return shlex.quote(text)


async def _told_to_stop() -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(wanted, stop.set)
    await stop.wait()
