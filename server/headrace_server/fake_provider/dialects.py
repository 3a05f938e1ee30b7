"""Answers in the words of each dialect: a streamed one as its events, a whole one as its JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request asks for."""

    dialect: str
    model: str
    text: str
    """The last thing that the user said."""
    max_tokens: int | None
    stream: bool
    sse: bool = True
    """Whether the stream is one of server-sent events; Gemini's may be a JSON array."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    tokens: Sequence[str]
    finish: str | None = None
    """The dialect's word for how it ended; None: chosen by whether it was cut off."""
    cut_off: bool = False

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.tokens)


class Form(Protocol):
    """How one dialect writes an answer."""

    def events(self, prompt: Prompt, reply: Reply) -> list[bytes]:
        """The events of a stream."""
        ...

    def whole(self, prompt: Prompt, reply: Reply) -> Json:
        """A whole answer."""
        ...


def read(path: str, body: bytes) -> Prompt | None:
    """What a POST asks for, or None where no dialect has such a path."""
    route, _, query = path.partition("?")
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        asked = {}
    if not isinstance(asked, dict):
        asked = {}
    if gemini := re.search(r"/models/(.+):(generateContent|streamGenerateContent)$", route):
        limit = (asked.get("generationConfig") or {}).get("maxOutputTokens")
        streams = gemini[2] == "streamGenerateContent"
        return Prompt("gemini", unquote(gemini[1]), _said(asked.get("contents")), limit, streams, "alt=sse" in query)
    for ending, dialect in (("/chat/completions", "chat"), ("/responses", "responses"), ("/messages", "claude")):
        if route.endswith(ending):
            limits = (asked.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
            said = _said(asked.get("messages", asked.get("input")))
            model = str(asked.get("model", ""))
            return Prompt(dialect, model, said, next((n for n in limits if isinstance(n, int)), None), asked.get("stream") is True)
    return None


def _said(turns: Any) -> str:
    """The text of the last turn."""
    if isinstance(turns, str):
        return turns
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return ""
    content = turns[-1].get("content", turns[-1].get("parts"))
    if isinstance(content, str):
        return content
    return " ".join(str(part["text"]) for part in content or [] if isinstance(part, dict) and "text" in part)


def reply_to(prompt: Prompt) -> Reply:
    """The default answer: an echo of the prompt, or as many tokens as the model's name says."""
    if size := re.search(r"n(\d+)-d\d", prompt.model):
        return Reply([f" tok{i}" for i in range(int(size[1]))])
    words = f"You said: {prompt.text or 'nothing'} This answer comes from the fake provider, one word at a time.".split()
    tokens = [word if i == 0 else " " + word for i, word in enumerate(words)]
    cut_off = prompt.max_tokens is not None and prompt.max_tokens < len(tokens)
    return Reply(tokens[: prompt.max_tokens] if cut_off else tokens, cut_off=cut_off)


def pace_of(prompt: Prompt) -> float:
    """Milliseconds between two tokens, as the model's name says."""
    pace = re.search(r"n\d+-d(\d+)", prompt.model)
    return float(pace[1]) if pace else 0


def event(data: Json | str, *, named: bool) -> bytes:
    """One server-sent event. A string is sent as it is."""
    if isinstance(data, str):
        return data.encode() + b"\n\n"
    name = f"event: {data['type']}\n" if named and "type" in data else ""
    return f"{name}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _counts(prompt: Prompt, reply: Reply) -> tuple[int, int]:
    return max(1, len(prompt.text.split())), len(reply.tokens)


class Chat:
    """OpenAI chat completions."""

    def events(self, prompt: Prompt, reply: Reply) -> list[bytes]:
        """A role, the tokens, the finish reason, usage, [DONE]."""
        base = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": prompt.model}

        def chunk(delta: Json, finish: str | None = None) -> bytes:
            return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}, named=False)

        return [
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": token}) for token in reply.tokens),
            chunk({}, self._finish(reply)),
            event({**base, "choices": [], "usage": self._usage(prompt, reply)}, named=False),
            b"data: [DONE]\n\n",
        ]

    def whole(self, prompt: Prompt, reply: Reply) -> Json:
        """A chat.completion."""
        message = {"role": "assistant", "content": reply.text}
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": prompt.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish(reply)}],
            "usage": self._usage(prompt, reply),
        }

    @staticmethod
    def _finish(reply: Reply) -> str:
        return reply.finish or ("length" if reply.cut_off else "stop")

    @staticmethod
    def _usage(prompt: Prompt, reply: Reply) -> Json:
        said, answered = _counts(prompt, reply)
        return {"prompt_tokens": said, "completion_tokens": answered, "total_tokens": said + answered}


class Responses:
    """OpenAI Responses."""

    def events(self, prompt: Prompt, reply: Reply) -> list[bytes]:
        """response.created, an item with its text deltas, the whole response."""
        item, whole = self._item(reply), self.whole(prompt, reply)
        at = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
        last = "response.completed" if whole["status"] == "completed" else "response.incomplete"
        told: list[Json] = [
            {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
            {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": "", "annotations": []}},
            *({"type": "response.output_text.delta", **at, "delta": token} for token in reply.tokens),
            {"type": "response.output_text.done", **at, "text": reply.text},
            {"type": "response.content_part.done", **at, "part": item["content"][0]},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": last, "response": whole},
        ]
        return [event({**data, "sequence_number": i}, named=True) for i, data in enumerate(told)]

    def whole(self, prompt: Prompt, reply: Reply) -> Json:
        """A response."""
        said, answered = _counts(prompt, reply)
        finish = reply.finish or ("max_output_tokens" if reply.cut_off else "completed")
        done = finish == "completed"
        return {
            "id": "resp_fake",
            "object": "response",
            "created_at": 1_700_000_000,
            "model": prompt.model,
            "status": "completed" if done else "incomplete",
            "incomplete_details": None if done else {"reason": finish},
            "error": None,
            "output": [self._item(reply)],
            "usage": {"input_tokens": said, "output_tokens": answered, "total_tokens": said + answered},
        }

    @staticmethod
    def _item(reply: Reply) -> Json:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        return {"id": "msg_fake", "type": "message", "status": "completed", "role": "assistant", "content": content}


class Claude:
    """Anthropic Messages."""

    def events(self, prompt: Prompt, reply: Reply) -> list[bytes]:
        """message_start, one text block with a ping in it, message_delta, message_stop."""
        said, answered = _counts(prompt, reply)
        start = {**self.whole(prompt, reply), "content": [], "stop_reason": None, "usage": {"input_tokens": said, "output_tokens": 1}}
        told: list[Json] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}} for token in reply.tokens),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": self._finish(reply), "stop_sequence": None},
                "usage": {"output_tokens": answered},
            },
            {"type": "message_stop"},
        ]
        return [event(data, named=True) for data in told]

    def whole(self, prompt: Prompt, reply: Reply) -> Json:
        """A message."""
        said, answered = _counts(prompt, reply)
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": prompt.model,
            "content": [{"type": "text", "text": reply.text}],
            "stop_reason": self._finish(reply),
            "stop_sequence": None,
            "usage": {"input_tokens": said, "output_tokens": answered},
        }

    @staticmethod
    def _finish(reply: Reply) -> str:
        return reply.finish or ("max_tokens" if reply.cut_off else "end_turn")


class Gemini:
    """Gemini's generateContent."""

    def events(self, prompt: Prompt, reply: Reply) -> list[bytes]:
        """A response for each token; the finish reason and usage on the last."""
        last = len(reply.tokens) - 1
        answers = [self._response(prompt, reply, token, last=i == last) for i, token in enumerate(reply.tokens)]
        if not answers:
            answers = [self._response(prompt, reply, "", last=True)]
        if prompt.sse:
            return [event(answer, named=False) for answer in answers]
        return [*((b"," if i else b"[") + json.dumps(answer).encode() for i, answer in enumerate(answers)), b"]"]

    def whole(self, prompt: Prompt, reply: Reply) -> Json:
        """One response."""
        return self._response(prompt, reply, reply.text, last=True)

    @staticmethod
    def _response(prompt: Prompt, reply: Reply, text: str, *, last: bool) -> Json:
        said, answered = _counts(prompt, reply)
        candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        usage = {"promptTokenCount": said, "totalTokenCount": said}
        if last:
            candidate["finishReason"] = reply.finish or ("MAX_TOKENS" if reply.cut_off else "STOP")
            usage = {"promptTokenCount": said, "candidatesTokenCount": answered, "totalTokenCount": said + answered}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": prompt.model, "responseId": "fake"}


FORMS: Mapping[str, Form] = {"chat": Chat(), "responses": Responses(), "claude": Claude(), "gemini": Gemini()}
"""One row a dialect."""

NAMED = frozenset({"responses", "claude"})
"""The dialects whose events carry a name."""
