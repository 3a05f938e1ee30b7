"""The server: it takes the next step of a provider's script, or answers by default, and keeps account of every call."""

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from headrace_server.fake_provider import dialects
from headrace_server.fake_provider.http import CallerLeft, Connection, Request
from headrace_server.fake_provider.script import Script, Step, cut, enlarged, pieces
from headrace_server.fake_provider.tls import self_signed

_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Fate(StrEnum):
    """How a call stands or ended."""

    OPEN = "open"
    ANSWERED = "answered"
    BROKEN_OFF = "broken_off"
    """By the script."""
    CALLER_LEFT = "caller_left"


@dataclass(slots=True)
class Recorded:
    """One call. Times are seconds on the monotonic clock."""

    number: int
    connection: int
    """Calls with the same number came over the same connection."""
    request: Request
    prompt: dialects.Prompt | None
    at: float
    provider: str = ""
    """Which provider of the script was asked; empty where they have no names."""
    fate: Fate = Fate.OPEN
    ended_at: float | None = None
    sent: int = 0
    """Bytes of the body that went out."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def headers(self) -> dict[str, str]:
        """Of the request; names in lower case."""
        return self.request.headers

    @property
    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.request.body)

    def end(self, fate: Fate) -> None:
        """Tell whoever waits."""
        self.fate, self.ended_at = fate, time.monotonic()
        self.ended.set()


class _Playlist:
    """The steps that one provider has still to play."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = deque(steps)
        self._played = 0

    def next(self) -> Step | None:
        """The step for the next request; None: the default answer."""
        if not self.steps:
            return None
        step = self.steps[0]
        self._played += 1
        if step.times and self._played >= step.times:
            self.steps.popleft()
            self._played = 0
        return step


class FakeProvider:
    """The server, as an asynchronous context manager. Port 0 takes a free one; steps may be added to `script` at any time.

    The providers of a `Script` each have a path prefix of their own, `/NAME`, and `script` stays empty.
    """

    def __init__(
        self, script: Iterable[Step] | Script = (), *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._named = script.providers if isinstance(script, Script) else {}
        self._playlists = {name: _Playlist(provider.calls) for name, provider in self._named.items()}
        self._playlists[""] = _Playlist(() if isinstance(script, Script) else script)
        self.script = self._playlists[""].steps
        self.requests: list[Recorded] = []
        self._address = (host, port)
        self._tls = tls
        self._connections: dict[Connection, int] = {}
        self._opened = 0
        self._server: asyncio.Server | None = None
        self._self_signed: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens, such as http://127.0.0.1:40123."""
        assert self._server is not None, "it listens once it was entered"
        return _url("https" if self._tls else "http", self._server)

    def api_url(self, dialect: str, provider: str = "") -> str:
        """The `api_url` of a provider that speaks this dialect; `provider` is its name in the script."""
        named = self._named.get(provider)
        url = _url("https", self._self_signed) if named is not None and named.self_signed and self._self_signed else self.url
        url = f"{url}/{provider}" if provider else url
        return url + "/v1" if dialect == "openai" else url

    def api_urls(self) -> dict[str, str]:
        """The `api_url` of each provider of the script, by name."""
        return {name: self.api_url(provider.dialect, name) for name, provider in self._named.items()}

    def requests_of(self, provider: str) -> list[Recorded]:
        """The calls of one provider of the script, in order."""
        return [call for call in self.requests if call.provider == provider]

    async def __aenter__(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._serve), *self._address, ssl=self._tls)
        if any(provider.self_signed for provider in self._named.values()):
            self._self_signed = await loop.create_server(lambda: Connection(self._serve), self._address[0], 0, ssl=self_signed())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop listening and drop every connection."""
        servers = [server for server in (self._server, self._self_signed) if server is not None]
        for server in servers:
            server.close()
        tasks = [connection.task for connection in self._connections]
        for connection in list(self._connections):
            connection.transport.abort()
            connection.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            await server.wait_closed()

    def stats(self) -> dict[str, Any]:
        """What was asked, and how each call ended."""
        fates = {fate.value: sum(call.fate is fate for call in self.requests) for fate in Fate}
        calls = [
            {
                "number": call.number,
                **({"provider": call.provider} if self._named else {}),
                "connection": call.connection,
                "path": call.request.path,
                "model": call.prompt.model if call.prompt else "",
                "stream": bool(call.prompt and call.prompt.stream),
                "fate": call.fate.value,
                "sent": call.sent,
            }
            for call in self.requests[-1000:]
        ]
        told = {"requests": len(self.requests), "connections": self._opened, "open": len(self._connections), "fates": fates}
        if self._named:
            told["providers"] = {name: len(self.requests_of(name)) for name in self._named}
        return {**told, "calls": calls}

    # ------------------------------------------------------------ one connection

    async def _serve(self, connection: Connection) -> None:
        self._opened += 1
        number = self._connections[connection] = self._opened
        try:
            while (request := await connection.next_request()) is not None:
                if request.method == "GET":
                    await self._answer_get(connection, request.path)
                elif not await self._answer_post(connection, number, request):
                    return
        finally:
            del self._connections[connection]

    async def _answer_get(self, connection: Connection, path: str) -> None:
        if path == "/fake/stats":
            status, told = 200, self.stats()
        elif path.endswith("/models"):
            status, told = 200, {"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "headrace"}]}
        else:
            status, told = 404, {"error": {"message": f"there is no {path} here", "type": "invalid_request_error"}}
        body = json.dumps(told).encode()
        await connection.send(_head(status, {"content-type": "application/json", "content-length": str(len(body))}) + body)

    async def _answer_post(self, connection: Connection, number: int, request: Request) -> bool:
        """Answer one call; whether the connection goes on."""
        prefix = request.path.split("/", 2)[1] if self._named else ""
        provider = prefix if prefix in self._named else ""
        # Where providers have names, nobody answers outside of their prefixes.
        prompt = dialects.read(request.path, request.body) if provider or not self._named else None
        call = Recorded(len(self.requests), number, request, prompt, time.monotonic(), provider)
        self.requests.append(call)
        step = self._playlists[provider].next()
        try:
            ended, goes_on = await self._play(connection, call, step)
        except (CallerLeft, asyncio.CancelledError):
            call.end(Fate.CALLER_LEFT)
            raise
        call.end(ended)
        if step is not None and step.hang_up == "reuse":
            await connection.reused()
            return False
        return goes_on

    async def _play(self, connection: Connection, call: Recorded, step: Step | None) -> tuple[Fate, bool]:
        """Send one answer: how it ended, and whether the connection goes on."""
        parts, headers, status = _answer(call, step)
        if step is not None:
            parts, more = enlarged(parts, step.large)
            headers |= more
        step = step or Step(pace_ms=dialects.pace_of(call.prompt) if call.prompt else 0)
        await connection.pause(step.delay_ms)
        fault = step.fault
        framing = step.framing or ("chunked" if "event-stream" in headers["content-type"] else "content-length")
        if fault is None or not fault.before_headers:
            headers |= {"transfer-encoding": "chunked"} if framing == "chunked" else {}
            headers |= {"content-length": str(sum(map(len, parts)))} if framing == "content-length" else {}
            headers |= {"connection": "close"} if framing == "close" else {}
            await connection.send(_head(status, headers | {name.lower(): value for name, value in step.headers.items()}))
            for i, piece in enumerate(pieces(cut(parts, fault), step.split)):
                await connection.pause(step.pace_ms if i else 0)
                await connection.send(_framed(piece, framing))
                call.sent += len(piece)
        if fault is None:
            if framing == "chunked":
                await connection.send(b"0\r\n\r\n")
            return Fate.ANSWERED, framing != "close" and step.hang_up != "idle"
        if fault.kind == "reset":
            await connection.reset()
        elif fault.kind == "stall":
            await connection.closed.wait()
            raise CallerLeft
        elif fault.kind == "drip":
            while True:
                await connection.send(_framed(fault.drip.encode(), framing))
                call.sent += len(fault.drip.encode())
                await connection.pause(fault.every_ms)
        return Fate.BROKEN_OFF, False


def _answer(call: Recorded, step: Step | None) -> tuple[list[bytes], dict[str, str], int]:
    """The parts of the body, the headers that describe it, and the status."""
    prompt = call.prompt
    status = step.status if step else 200
    if step is not None and (body := step.raw_body) is not None:
        return [body], {"content-type": "text/plain" if isinstance(step.body, str) else "application/json"}, status
    if step is not None and step.events is not None:
        named = prompt is not None and prompt.dialect in dialects.NAMED
        return [dialects.event(data, named=named) for data in step.events], {"content-type": "text/event-stream"}, status
    if prompt is None:
        return (
            [b'{"error":{"message":"no dialect has this path","type":"invalid_request_error"}}'],
            {"content-type": "application/json"},
            404,
        )
    if status != 200:
        error = {"message": "the script says so", "type": "server_error", "code": status}
        return [json.dumps({"type": "error", "error": error}).encode()], {"content-type": "application/json"}, status
    if step is not None and step.text is not None:
        words = step.text.split(" ")
        reply = dialects.Reply([word if i == 0 else " " + word for i, word in enumerate(words)] if step.text else [], step.finish)
    else:
        default = dialects.reply_to(prompt)
        reply = dialects.Reply(default.tokens, step.finish if step else None, default.cut_off)
    form = dialects.FORMS[prompt.dialect]
    if prompt.stream:
        return form.events(prompt, reply), {"content-type": "text/event-stream" if prompt.sse else "application/json"}, status
    return [json.dumps(form.whole(prompt, reply)).encode()], {"content-type": "application/json"}, status


def _url(scheme: str, server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{lines}\r\n".encode("latin-1")


def _framed(piece: bytes, framing: str) -> bytes:
    if not piece:
        return b""
    return b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece
