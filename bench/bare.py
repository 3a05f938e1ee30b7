"""The limit: a bare grpc.aio server whose handler yields prebuilt messages, one chunk each. It asks nobody and keeps nothing.

    python bench/bare.py [--listen 127.0.0.1:0]

It answers StreamGenerate as Headrace would, one generation a stream, by the name of the model as bench/provider.py reads it.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

import grpc
from provider import SPEC, STAMP

from headrace.v1 import event_pb2
from headrace.v1.generation_service_pb2 import StreamGenerateRequest, StreamGenerateResponse
from headrace_server.program import run

REQUEST_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@lru_cache
def prebuilt(chunks: int, text: str) -> tuple[bytes, ...]:
    """The messages of an answer."""
    return tuple(
        StreamGenerateResponse(
            events=[
                event_pb2.GenerationEvent(request_id=REQUEST_ID, chunk=event_pb2.StreamChunk(index=index, text=text, attempt=1, merged=1))
            ]
        ).SerializeToString()
        for index in range(chunks)
    )


async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Handle StreamGenerate."""
    async for raw in requests:
        spec = SPEC.search(StreamGenerateRequest.FromString(raw).generate.model)
        assert spec is not None
        chunks, delay = int(spec["chunks"]), int(spec["delay"]) / 1000
        if not delay:
            for message in prebuilt(chunks, " tok^"):
                yield message
            continue
        loop = asyncio.get_running_loop()
        began = loop.time()
        for index, message in enumerate(prebuilt(chunks, STAMP.decode())):
            await asyncio.sleep(began + index * delay - loop.time())
            yield message.replace(STAMP, b"^%019d" % time.monotonic_ns())


async def serve(listen: str) -> None:
    """Answer until the process ends; one line says where."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("headrace.v1.GenerationService", {"StreamGenerate": handler})])
    port = server.add_insecure_port(listen)
    await server.start()
    print(f"bare server listening on {listen.rpartition(':')[0]}:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0")
    run(serve(parser.parse_args().listen))
