"""The Python client of Headrace for asyncio.

    from headrace import aio

    async with aio.Client("localhost:50051") as client:
        print((await client.generate("What does a river do?")).text)
        async with client.stream("And a lake?", timeout=30) as stream:
            async for piece in stream:
                print(piece, end="", flush=True)

Everything else, errors and messages, is in `headrace`.
"""

from headrace.aio.client import Client
from headrace.aio.session import Session
from headrace.aio.stream import Stream

__all__ = ["Client", "Session", "Stream"]
