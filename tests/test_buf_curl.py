"""`buf curl`, which knows the contract by reflection alone, is told the same as `grpcurl`."""

import base64
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # noqa: F401 (the details of a status are found by their names)
from google.rpc.status_pb2 import Status

from headrace.v1.generation_service_pb2 import AttachGenerationResponse, GenerateResponse, StreamGenerateResponse
from headrace.v1.request_service_pb2 import GetRequestResponse
from support.cookbook import grpcurl, printed, service

FIRST, SECOND = "01890a5d-ac96-774b-bcce-b302099a8070", "01890a5d-ac96-774b-bcce-b302099a8071"
GENERATION = "headrace.v1.GenerationService"
M = TypeVar("M", bound=Message)
CODES = {"invalid_argument": 3, "resource_exhausted": 8, "out_of_range": 11}


class Both:
    """The two programs, and the service they ask."""

    def __init__(self, port: int, program: str) -> None:
        self.port = port
        self.program = program

    async def grpcurl(self, rpc: str, *messages: dict[str, Any], flags: str = "") -> str:
        data = shlex.quote(" ".join(map(json.dumps, messages)))
        return await printed(f"grpcurl -plaintext {flags} -d {data} localhost:50051 {rpc}", self.port, self.program)

    async def buf(self, rpc: str, *messages: dict[str, Any]) -> str:
        data = shlex.quote(" ".join(map(json.dumps, messages)))
        return await printed(
            f"buf curl --protocol grpc --http2-prior-knowledge -d {data} http://localhost:50051/{rpc}", self.port, self.program
        )


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    program = grpcurl()
    async with service(tmp_path) as port:
        yield Both(port, program)


def generation(request_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "one two"}]}],
        "quiet": True,
        **fields,
    }


def values(text: str) -> Iterator[Any]:
    """The JSON values that stand in a text, one behind the other."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def messages(text: str, kind: type[M]) -> list[M]:
    return [ParseDict(value, kind()) for value in values(text)]


async def test_buf_curl_reads_the_record_that_grpcurl_reads(both: Both):
    (answer,) = messages(await both.buf(f"{GENERATION}/Generate", generation(FIRST)), GenerateResponse)
    (seen,) = messages(await both.grpcurl("headrace.v1.RequestService/GetRequest", {"request_id": FIRST}), GetRequestResponse)

    assert messages(await both.buf("headrace.v1.RequestService/GetRequest", {"request_id": FIRST}), GetRequestResponse) == [seen]
    assert seen.request.response_data == answer.result


async def test_buf_curl_is_streamed_what_grpcurl_is_streamed(both: Both):
    await both.grpcurl(f"{GENERATION}/StreamGenerate", {"generate": generation(FIRST)})
    seen = [
        [event for response in messages(text, AttachGenerationResponse) for event in response.events]
        for text in (
            await both.grpcurl(f"{GENERATION}/AttachGeneration", {"request_id": FIRST}),
            await both.buf(f"{GENERATION}/AttachGeneration", {"request_id": FIRST}),
        )
    ]

    assert seen[0] == seen[1]
    assert seen[0][-1].WhichOneof("event") == "completed"


async def test_buf_curl_runs_several_generations_on_one_stream(both: Both):
    commands = [{"generate": generation(FIRST)}, {"generate": generation(SECOND)}]
    live = messages(await both.buf(f"{GENERATION}/StreamGenerate", *commands), StreamGenerateResponse)
    again = messages(await both.grpcurl(f"{GENERATION}/StreamGenerate", *commands), StreamGenerateResponse)

    for request_id in (FIRST, SECOND):
        first, second = (
            [event for response in seen for event in response.events if event.request_id == request_id] for seen in (live, again)
        )
        assert (
            "".join(event.chunk.text for event in first)
            == "".join(event.chunk.text for event in second)
            == first[-1].completed.content[0].text
        )
        assert first[-1] == second[-1]


@pytest.mark.parametrize(
    ("rpc", "command"),
    [
        ("Generate", generation(SECOND, temperature=3, top_p=2)),
        ("Generate", generation(SECOND, provider="limited", fallback={"enabled": False})),
        ("StreamGenerate", {"resume": {"request_id": FIRST, "next_index": 99}}),
    ],
    ids=["invalid", "limited", "resume"],
)
async def test_buf_curl_gets_the_error_that_grpcurl_gets(both: Both, rpc: str, command: dict[str, Any]):
    await both.grpcurl(f"{GENERATION}/Generate", generation(FIRST))
    told = ParseDict(list(values(await both.grpcurl(f"{GENERATION}/{rpc}", command, flags="-format-error")))[-1], Status())
    error = list(values(await both.buf(f"{GENERATION}/{rpc}", command)))[-1]

    status = Status(code=CODES[error["code"]], message=error["message"])
    for detail in error["details"]:
        padded = detail["value"] + "=" * (-len(detail["value"]) % 4)
        status.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=base64.b64decode(padded))
    assert MessageToDict(status) == MessageToDict(told)
    assert len(told.details) >= 2
