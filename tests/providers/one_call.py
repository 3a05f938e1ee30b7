"""Calls a provider once, in a process of its own, and prints as JSON what that took of memory and how it ended.

Arguments: the transport, and the provider's address. A small call comes first, so that what is only made once is there already.
"""

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import cast

from pydantic import SecretStr

from headrace_server.domain.errors import ProviderFault
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.http import TransportKind, make_transport
from headrace_server.providers.registry import dialect_for
from headrace_server.providers.upstream import HttpUpstream

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
STATUS = Path("/proc/self/status")


def peak() -> int:
    """Most bytes of memory that the process has taken so far: since it began, or since `forget_peak`."""
    if STATUS.exists():
        return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """On Linux, the peak begins anew with what is taken now; elsewhere what was taken before hides some of what follows."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


async def call(upstream: HttpUpstream, url: str) -> str:
    """How a call ends: the code and the subreason of its fault, or `well`."""
    message = ChatMessage(role=MessageRole.USER, content=(TextPart(text="hi"),))
    request = GenerateRequest(request_id=ID, stream=True, messages=(message,))
    provider = Provider(
        id=ID,
        provider="p",
        dialect=Dialect.OPENAI,
        api_url=url,
        default_model="m",
        api_key=SecretStr("sk-none"),
        created_at=0,
        updated_at=0,
    )
    try:
        made = await upstream.call(request, provider, "m", traceparent=f"00-{1:032x}-{1:016x}-01", connect_timeout=5)
        try:
            while await made.read() is not None:
                pass
        finally:
            await made.close()
    except ProviderFault as fault:
        return f"{fault.fault.code} {fault.fault.subreason}".rstrip()
    return "well"


async def main(kind: TransportKind, url: str) -> None:
    async with make_transport(kind) as client:
        upstream = HttpUpstream(client, dialect_for, lambda: 0)
        assert await call(upstream, f"{url}/small") == "well"
        forget_peak()
        before = peak()
        outcome = await call(upstream, f"{url}/large")
        print(json.dumps({"grown": peak() - before, "outcome": outcome}))


if __name__ == "__main__":
    asyncio.run(main(cast(TransportKind, sys.argv[1]), sys.argv[2]))
