"""Small answers in the words of each dialect, for tests that run on all of them."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.events import Delta
from headrace_server.domain.provider import Provider
from headrace_server.providers.dialect import Decoder, Dialect
from headrace_server.providers.registry import dialect_for
from headrace_server.providers.sse import Scanner
from support.tiny_dialect import Tiny

Json = dict[str, Any]

MODEL = "model-1"
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBwcm92aWRlcg=="


@dataclass(frozen=True)
class ToolUse:
    """A call that the provider makes."""

    name: str = "look"
    arguments: str = '{"at": "the sky", "n": 1.50}'
    id: str = "call_1"


@dataclass(frozen=True)
class Said:
    """What a provider answers. The counts are as the API counts: 10 in (3 of them cached), 7 out (2 of them reasoning)."""

    texts: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    calls: Sequence[ToolUse] = ()
    refusal: str = ""
    finish: str = "stop"
    """stop, stop_sequence, length, filter or error."""


def sse(data: Json | str, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


# ---------------------------------------------------------------- claude

_CLAUDE_FINISH = {"stop": "end_turn", "stop_sequence": "stop_sequence", "length": "max_tokens", "filter": "refusal", "error": "brand_new"}


def claude_stream(said: Said) -> list[bytes]:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}
    events: list[Json] = [{"type": "message_start", "message": {"type": "message", "model": MODEL, "content": [], "usage": usage}}]
    blocks: list[tuple[Json, list[Json]]] = []
    if said.reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning]
        blocks.append(({"type": "thinking", "thinking": ""}, [*deltas, {"type": "signature_delta", "signature": SIGNATURE}]))
    if said.texts or said.refusal:
        pieces = [*said.texts, *([said.refusal] if said.refusal else [])]
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]))
    for call in said.calls:
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in halves(call.arguments)]
        blocks.append(({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, pieces))
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    output = {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}
    events.append({"type": "message_delta", "delta": {"stop_reason": _claude_reason(said)}, "usage": output})
    events.append({"type": "message_stop"})
    return [sse(event, event["type"]) for event in events]


def _claude_reason(said: Said) -> str:
    if said.finish == "stop" and said.refusal:
        return "refusal"
    return "tool_use" if said.finish == "stop" and said.calls else _CLAUDE_FINISH[said.finish]


def claude_whole(said: Said) -> Json:
    content: list[Json] = []
    if said.reasoning:
        content.append({"type": "thinking", "thinking": "".join(said.reasoning), "signature": SIGNATURE})
    if said.texts or said.refusal:
        content.append({"type": "text", "text": "".join(said.texts) + said.refusal})
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)} for call in said.calls]
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}
    return {"type": "message", "model": MODEL, "content": content, "stop_reason": _claude_reason(said), "usage": usage}


# ---------------------------------------------------------------- gemini

_GEMINI_FINISH = {"stop": "STOP", "stop_sequence": "STOP", "length": "MAX_TOKENS", "filter": "SAFETY", "error": "OTHER"}
_GEMINI_USAGE = {"promptTokenCount": 10, "cachedContentTokenCount": 3, "candidatesTokenCount": 5, "thoughtsTokenCount": 2}


def _gemini_parts(said: Said) -> list[Json]:
    parts: list[Json] = [{"text": piece, "thought": True} for piece in said.reasoning]
    if said.reasoning:
        parts[-1]["thoughtSignature"] = SIGNATURE
    parts += [{"text": piece} for piece in said.texts]
    parts += [{"functionCall": {"id": call.id, "name": call.name, "args": json.loads(call.arguments)}} for call in said.calls]
    return parts


def _gemini_end(said: Said) -> Json:
    finish = "SAFETY" if said.refusal and said.finish == "stop" else _GEMINI_FINISH[said.finish]
    return {"candidates": [{"content": {"parts": []}, "finishReason": finish}], "usageMetadata": _GEMINI_USAGE, "modelVersion": MODEL}


def gemini_stream(said: Said) -> list[bytes]:
    said_first = [{"candidates": [{"content": {"parts": [part]}}], "modelVersion": MODEL} for part in _gemini_parts(said)]
    return [sse(event) for event in [*said_first, _gemini_end(said)]]


def gemini_whole(said: Said) -> Json:
    whole = _gemini_end(said)
    whole["candidates"][0]["content"]["parts"] = _gemini_parts(said)
    return whole


# ---------------------------------------------------------------- openai, chat

_CHAT_FINISH = {"stop": "stop", "stop_sequence": "stop", "length": "length", "filter": "content_filter", "error": "brand_new"}
_CHAT_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def _chat_reason(said: Said) -> str:
    return "tool_calls" if said.finish == "stop" and said.calls else _CHAT_FINISH[said.finish]


def chat_stream(said: Said) -> list[bytes]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    detail = {"type": "reasoning.text", "index": 0}
    deltas += [{"reasoning": piece, "reasoning_details": [detail | {"text": piece}]} for piece in said.reasoning]
    if said.reasoning:
        deltas.append({"reasoning_details": [detail | {"signature": SIGNATURE}]})
    deltas += [{"content": piece} for piece in said.texts]
    deltas += [{"refusal": piece} for piece in (halves(said.refusal) if said.refusal else ())]
    for index, call in enumerate(said.calls):
        begin, end = halves(call.arguments)
        function = {"name": call.name, "arguments": begin}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": end}}]})
    chunks: list[Json] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": _chat_reason(said)}]})
    chunks.append({"choices": [], "usage": _CHAT_USAGE})
    return [*(sse({"id": "c", "model": MODEL} | chunk) for chunk in chunks), sse("[DONE]")]


def chat_whole(said: Said) -> Json:
    message: Json = {"role": "assistant", "content": "".join(said.texts) or None, "refusal": said.refusal or None}
    if said.reasoning:
        text = "".join(said.reasoning)
        message |= {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text, "signature": SIGNATURE}]}
    if said.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in said.calls
        ]
    return {
        "id": "c",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": _chat_reason(said)}],
        "usage": _CHAT_USAGE,
    }


# ---------------------------------------------------------------- openai, responses

_RESPONSES_USAGE = {
    "input_tokens": 10,
    "output_tokens": 7,
    "total_tokens": 17,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def _responses_items(said: Said) -> list[Json]:
    items: list[Json] = []
    if said.reasoning:
        summary = [{"type": "summary_text", "text": "".join(said.reasoning)}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": SIGNATURE})
    content: list[Json] = []
    if said.texts:
        content.append({"type": "output_text", "text": "".join(said.texts), "annotations": []})
    if said.refusal:
        content.append({"type": "refusal", "refusal": said.refusal})
    if content:
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content})
    for n, call in enumerate(said.calls):
        items.append({"type": "function_call", "id": f"fc_{n}", "call_id": call.id, "name": call.name, "arguments": call.arguments})
    return items


def responses_whole(said: Said) -> Json:
    status = {"stop": "completed", "stop_sequence": "completed", "error": "failed"}.get(said.finish, "incomplete")
    reason = {"length": "max_output_tokens", "filter": "content_filter"}.get(said.finish)
    details = {"reason": reason} if reason else None
    body = {"id": "resp_1", "object": "response", "model": MODEL, "status": status, "incomplete_details": details}
    return body | {"output": _responses_items(said), "usage": _RESPONSES_USAGE}


def responses_stream(said: Said) -> list[bytes]:
    events: list[Json] = [{"type": "response.created", "response": {"id": "resp_1", "model": MODEL, "status": "in_progress", "output": []}}]
    for index, item in enumerate(_responses_items(said)):
        at = {"output_index": index, "item_id": item["id"]}
        hollow = {"summary": [], "content": [], "arguments": "", "encrypted_content": None}
        begun = {name: hollow.get(name, value) for name, value in item.items()}
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        if item["type"] == "reasoning":
            delta = {"type": "response.reasoning_summary_text.delta", "summary_index": 0, **at}
            events += [delta | {"delta": piece} for piece in said.reasoning]
        elif item["type"] == "function_call":
            delta = {"type": "response.function_call_arguments.delta", **at}
            events += [delta | {"delta": piece} for piece in halves(item["arguments"])]
        else:
            for number, part in enumerate(item["content"]):
                kind = "output_text" if part["type"] == "output_text" else "refusal"
                delta = {"type": f"response.{kind}.delta", "content_index": number, **at}
                events += [delta | {"delta": piece} for piece in (said.texts if kind == "output_text" else halves(said.refusal))]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    whole = responses_whole(said)
    events.append({"type": f"response.{whole['status']}", "response": whole})
    return [sse(event, event["type"]) for event in events]


# ---------------------------------------------------------------- tiny

_TINY_FINISH = {"stop": "done", "stop_sequence": "done", "length": "cut", "filter": "filtered", "error": "brand_new"}


def _tiny_events(said: Said) -> list[Json]:
    events: list[Json] = [{"kind": "reasoning", "text": piece} for piece in said.reasoning]
    if said.reasoning:
        events.append({"kind": "reasoning", "signature": SIGNATURE})
    events += [{"kind": "text", "text": piece} for piece in said.texts]
    events += [{"kind": "refusal", "refusal": piece} for piece in (halves(said.refusal) if said.refusal else ())]
    for position, call in enumerate(said.calls):
        events.append({"kind": "tool_call", "position": position, "id": call.id, "name": call.name})
        events += [{"kind": "tool_call", "position": position, "arguments_delta": piece} for piece in halves(call.arguments)]
    return [*events, {"kind": "end", "why": _TINY_FINISH[said.finish], "model": MODEL, "given": 7, "cached": 3, "said": 5, "thought": 2}]


def tiny_stream(said: Said) -> list[bytes]:
    return [sse(event) for event in _tiny_events(said)]


def tiny_whole(said: Said) -> Json:
    return {"says": _tiny_events(said)}


# ---------------------------------------------------------------- all of them


@dataclass(frozen=True, repr=False)
class Case:
    """A dialect and its words."""

    title: str
    provider: Provider
    dialect: Dialect
    stream: Callable[[Said], list[bytes]]
    whole_json: Callable[[Said], Json]
    unknown: Json
    """An event of a kind that nobody knows."""
    error: Json
    """An event that is an error: the server is overloaded."""
    errors: dict[tuple[int, str], ErrorCode]
    """What an error body with this status means."""
    modelled: str
    """A field of the provider's API that a field of the request sets."""
    after_the_end: int = 0
    """How many frames follow that which ends the answer."""

    def whole(self, said: Said) -> bytes:
        return json.dumps(self.whole_json(said)).encode()

    def decoder(self) -> Decoder:
        return self.dialect.decoder(self.provider)

    def read(self, frames: Iterable[bytes]) -> tuple[Decoder, list[Delta]]:
        """Read a stream to its end. Raises ProviderFault."""
        decoder, deltas = self.decoder(), list[Delta]()
        scanner = Scanner()
        for frame in frames:
            for name, data in scanner.feed(frame):
                deltas += decoder.event(name, data)
        for name, data in scanner.close():
            deltas += decoder.event(name, data)
        decoder.finish()
        return decoder, deltas

    def read_whole(self, body: bytes) -> tuple[Decoder, list[Delta]]:
        """Read a whole answer. Raises ProviderFault."""
        decoder = self.decoder()
        deltas = list(decoder.whole(body))
        decoder.finish()
        return decoder, deltas


def tool(name: str) -> ModuleType:
    """A script of the folder `tools`, as a module."""
    if (known := sys.modules.get(f"headrace_tools_{name}")) is not None:
        return known
    path = Path(__file__).resolve().parents[2] / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"headrace_tools_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_E = ErrorCode
_PROVIDERS: dict[str, Provider] = {column.title: column.provider for column in tool("dialects").COLUMNS}


def _google(code: int, status: str, message: str = "no") -> str:
    return json.dumps({"error": {"code": code, "status": status, "message": message}})


def _openai(type: str, code: str | None, message: str = "no") -> str:
    return json.dumps({"error": {"type": type, "code": code, "message": message, "param": None}})


def _anthropic(type: str, message: str = "no") -> str:
    return json.dumps({"type": "error", "error": {"type": type, "message": message}})


_OPENAI_ERRORS = {
    (400, _openai("invalid_request_error", "context_length_exceeded")): _E.INVALID_REQUEST,
    (401, _openai("invalid_request_error", "invalid_api_key")): _E.AUTHENTICATION_ERROR,
    (404, _openai("invalid_request_error", "model_not_found")): _E.MODEL_NOT_FOUND,
    (429, _openai("tokens", "rate_limit_exceeded")): _E.RATE_LIMIT_EXCEEDED,
    (429, _openai("insufficient_quota", "insufficient_quota")): _E.QUOTA_EXCEEDED,
    (500, _openai("server_error", None)): _E.SERVER_ERROR,
}

CASES = (
    Case(
        "claude",
        _PROVIDERS["claude"],
        dialect_for(_PROVIDERS["claude"]),
        claude_stream,
        claude_whole,
        unknown={"type": "brand_new", "index": "x", "delta": 5},
        error={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        errors={
            (400, _anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")): _E.INVALID_REQUEST,
            (400, _anthropic("invalid_request_error", "Your credit balance is too low")): _E.QUOTA_EXCEEDED,
            (401, _anthropic("authentication_error")): _E.AUTHENTICATION_ERROR,
            (404, _anthropic("not_found_error", "model: x")): _E.MODEL_NOT_FOUND,
            (429, _anthropic("rate_limit_error")): _E.RATE_LIMIT_EXCEEDED,
            (529, _anthropic("overloaded_error")): _E.SERVER_ERROR,
        },
        modelled="max_tokens",
    ),
    Case(
        "gemini",
        _PROVIDERS["gemini"],
        dialect_for(_PROVIDERS["gemini"]),
        gemini_stream,
        gemini_whole,
        unknown={"brandNew": {"index": "x"}},
        error={"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}},
        errors={
            (400, _google(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)")): (
                _E.INVALID_REQUEST
            ),
            (400, _google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")): _E.AUTHENTICATION_ERROR,
            (402, _google(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")): _E.QUOTA_EXCEEDED,
            (404, _google(404, "NOT_FOUND", "models/x is not found")): _E.MODEL_NOT_FOUND,
            (429, _google(429, "RESOURCE_EXHAUSTED")): _E.RATE_LIMIT_EXCEEDED,
            (503, _google(503, "UNAVAILABLE")): _E.SERVER_ERROR,
        },
        modelled="contents",
    ),
    Case(
        "openai, chat",
        _PROVIDERS["other servers, chat"],
        dialect_for(_PROVIDERS["other servers, chat"]),
        chat_stream,
        chat_whole,
        unknown={"object": "brand_new", "choices": [], "delta": 5},
        error={"error": {"type": "server_error", "code": "server_is_overloaded", "message": "Overloaded"}},
        errors=_OPENAI_ERRORS,
        modelled="temperature",
        after_the_end=2,
    ),
    Case(
        "openai, responses",
        _PROVIDERS["openai, responses"],
        dialect_for(_PROVIDERS["openai, responses"]),
        responses_stream,
        responses_whole,
        unknown={"type": "response.brand_new.delta", "output_index": "x"},
        error={"type": "error", "code": "server_is_overloaded", "message": "Overloaded"},
        errors=_OPENAI_ERRORS,
        modelled="input",
    ),
    Case(
        "tiny",
        _PROVIDERS["claude"].model_copy(update={"api_url": Tiny.default_api_url}),
        Tiny(),
        tiny_stream,
        tiny_whole,
        unknown={"kind": "brand_new", "text": 5},
        error={"kind": "error", "type": "busy", "message": "Overloaded"},
        errors={
            (400, '{"type": "too_long", "message": "no"}'): _E.INVALID_REQUEST,
            (401, '{"type": "who", "message": "no"}'): _E.AUTHENTICATION_ERROR,
            (402, '{"type": "broke", "message": "no"}'): _E.QUOTA_EXCEEDED,
            (404, '{"type": "where", "message": "no"}'): _E.MODEL_NOT_FOUND,
            (429, '{"type": "slow", "message": "no"}'): _E.RATE_LIMIT_EXCEEDED,
            (503, '{"type": "busy", "message": "no"}'): _E.SERVER_ERROR,
        },
        modelled="temperature",
    ),
)
"""Every dialect of the registry, and one of the tests' own."""
