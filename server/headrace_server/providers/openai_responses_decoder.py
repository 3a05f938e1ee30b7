"""Reads answers of the Responses API: of OpenAI, and of the servers that speak it.

An answer is a list of items. What of them the next turn needs comes out in the parts of the answer, from where `openai_responses` takes
it back:

- a piece of reasoning has the item's `id`. Each summary is a part of its own; raw reasoning has RAW as its signature; encrypted content
  is `redacted_data`, in a part of its own with the same id;
- a tool call has its `call_id` as id and the item's id as signature, or, where the item says more (a `namespace`), a JSON object of both;
- what else a message says of itself follows its text as `provider_data` without a `type`: `annotations` and `logprobs` of the text,
  then `id` and `phase` of the message. The id only where reasoning came before it, since the two must go back together;
- any other item (`web_search_call`, `mcp_call`, `custom_tool_call`, …) is `provider_data`, whole, once it is done.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ProviderFault
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource, clamp
from headrace_server.providers.faults import ErrorBody, empty, ended_badly, malformed, truncated
from headrace_server.providers.history import made_id
from headrace_server.providers.json_values import UNREADABLE, Json, compact, text_of
from headrace_server.providers.openai_errors import error_inside, read_error

RAW = '{"type":"reasoning_text"}'
"""Signature of a part that holds raw reasoning, which goes back as `content`; any other text of reasoning is a `summary`."""

_ITEM_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What ids of items look like; signatures of other dialects are longer, or have other characters."""

FINISH_REASONS = {
    "completed": FinishReason.STOP,
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""By the answer's status, or by the reason for which it is incomplete; every other word means an error."""

_TEXTS = {
    "response.output_text.delta": "output_text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_text",
    "response.reasoning_summary_text.delta": "summary_text",
}
"""Events that carry a piece of text: the kind of part that it belongs to."""
_HOLDERS = {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning", "summary_text": "reasoning"}
"""Kinds of parts: the type of item that holds them."""
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
_PART_ENDS = ("response.content_part.done", "response.reasoning_summary_part.done", "response.reasoning_part.done")
_READ = frozenset(
    (
        *_TEXTS,
        *_ENDS,
        *_BEGINNINGS,
        *_PART_ENDS,
        "response.function_call_arguments.delta",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "error",
        "",
    )
)
"""Types of events that are read."""
_PASSED_OVER = re.compile(
    r"keepalive|ping"
    r"|response\.(content_part|reasoning_part|reasoning_summary_part)\.added"
    r"|response\.(function_call_arguments|reasoning_text|reasoning_summary_text|refusal)\.done"
    r"|response\.(web_search_call|file_search_call|code_interpreter_call|code_interpreter_call_code|image_generation_call)\.\w+"
    r"|response\.(mcp_call|mcp_call_arguments|mcp_list_tools|custom_tool_call_input)\.\w+"
)
"""Types that repeat what those say, or are about work under way. What is neither read nor one of these counts as unknown."""

_MOST_ENDS = 3
"""How often the end of an item is listened to: each time, all of its parts are looked at."""

_CALLERS_TOOLS = frozenset(("custom_tool_call", "computer_call", "local_shell_call", "apply_patch_call"))
"""Items that the API does not model and that, like a function call, wait for the caller to run something."""


class _Response(msgspec.Struct):
    """A whole answer, or what an event says of the answer under way."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: Any = None
    error: Any = None
    incomplete_details: Any = None


class _Event(msgspec.Struct):
    """An event of any type. One flat struct decodes faster than a union, and lets unknown types pass."""

    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    delta: str | None = None
    item: Json | None = None
    part: Json | None = None
    annotation: Any = None
    logprobs: msgspec.Raw = msgspec.Raw()
    response: _Response | None = None

    def number(self, kind: str) -> int | None:
        """The number of the part, among those of its kind, that the event is about."""
        return self.summary_index if kind == "summary_text" else self.content_index


class _Type(msgspec.Struct):
    type: str = ""


_event = msgspec.json.Decoder(_Event).decode
_response = msgspec.json.Decoder(_Response).decode
_type = msgspec.json.Decoder(_Type).decode
_item = msgspec.json.Decoder(Json).decode


class _Part:
    """A text inside an item, or the arguments of a call: what of it has been said."""

    __slots__ = ("_length", "_said", "about", "is_closed", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.about: Json = {}  # what will follow the text: annotations, logprobs
        self.is_closed = False
        self._said: list[str] = []
        self._length = 0

    def say(self, piece: str) -> None:
        """Remember a piece."""
        self._said.append(piece)
        self._length += len(piece)

    def rest(self, whole: str) -> str:
        """What of the whole text no piece has said; nothing where the pieces said something else."""
        if len(whole) <= self._length:
            return ""
        said = "".join(self._said)
        return whole[len(said) :] if whole.startswith(said) else ""


class _Item:
    """An item of the answer, under way or done."""

    __slots__ = ("arguments", "ends", "has_spoken", "id", "parts", "position", "type")

    def __init__(self, type: str, id: str) -> None:
        self.type = type
        self.id = id
        self.parts: dict[tuple[str, int], _Part] = {}
        self.has_spoken = False
        self.ends = 0  # how often its end has been told
        self.arguments = _Part("arguments")
        self.position = -1  # of a function call, once it has begun

    def part(self, kind: str, number: int | None) -> _Part:
        """The part of that kind and number; made when it is first asked for."""
        part = self.parts.get((kind, number or 0))
        if part is None:
            part = self.parts[kind, number or 0] = _Part(kind)
        return part

    def retold(self, whole: Any) -> Iterator[tuple[_Part | None, Json]]:
        """The parts that the end of an item tells once more, each with what is known of it; None for a kind that is not read.

        Where as many are known as are told, their order counts, else their number: some servers number the pieces from 1.
        """
        told = [(text_of(part.get("type")), part) for part in _list(whole)]
        totals, ranks = Counter(kind for kind, _ in told), Counter[str]()
        known = {kind: sorted(number for of_kind, number in self.parts if of_kind == kind) for kind in totals if kind in _HOLDERS}
        for kind, part in told:
            if _HOLDERS.get(kind) != self.type:
                yield None, part
                continue
            rank, numbers = ranks[kind], known[kind]
            yield self.part(kind, numbers[rank] if len(numbers) == totals[kind] else rank), part
            ranks[kind] += 1


class ResponsesDecoder:
    """Reads one answer of the Responses API.

    Deltas are passed on as they come. Where an item, or the answer as a whole, is told once more at its end, what no delta has carried
    is passed on then.
    """

    def __init__(self) -> None:
        self.answer = Answer()
        self._items: dict[int, _Item] = {}  # by output_index
        self._by_id: dict[str, _Item] = {}
        self._open: _Part | None = None  # the text that grows now
        self._open_item: _Item | None = None  # and what it belongs to
        self._deltas: list[Delta] = []  # of the event that is being read
        self._calls = 0
        self._has_reasoned = False
        self._is_asking = False
        self._has_refused = False
        self._has_ended = False
        self._failed: ProviderFault | None = None

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        """One event. The type in its data counts, its name only where there is none; after the last event nothing counts."""
        if self._has_ended or data.strip() == b"[DONE]":
            return ()
        self._deltas = []
        try:
            try:
                event = _event(data)
                self._read(event.type or name, event, data)
            except UNREADABLE as error:
                kind = _type_of(name, data)
                if kind is None or kind in _READ:
                    raise malformed(f"an event of the stream is not valid: {error}", data) from None
                self._pass_over(kind)
        except ProviderFault as fault:
            self._has_ended, self._failed = True, fault
            raise
        return self._deltas

    def whole(self, body: bytes) -> Sequence[Delta]:
        """An answer that came all at once: its items as a stream would have told them."""
        self._deltas = []
        try:
            response = _response(body)
            if response.output is None and response.error is None:
                raise malformed("the answer is not a response", body)
            self._learn(response)
            self._end(response, response.status or "no status", body)
        except UNREADABLE as error:
            raise malformed(f"the answer is not valid: {error}", body) from None
        return self._deltas

    def finish(self) -> None:
        """Complete is an answer whose last event, or whose status, says how it ended."""
        if self._failed is not None:
            raise self._failed
        if not self._has_ended:
            raise truncated("the stream ended before the answer was complete")
        answer = self.answer
        if answer.usage is not None:
            answer.usage = answer.usage.model_copy(update={"source": UsageSource.PROVIDER})
        reason = FINISH_REASONS.get(answer.native_finish_reason)
        if reason is None:
            answer.finish_reason = FinishReason.ERROR
            raise ended_badly(answer.native_finish_reason)
        if reason is FinishReason.STOP:
            if answer.is_empty:
                raise empty()
            if self._has_refused:
                reason = FinishReason.CONTENT_FILTER
            elif answer.has_tool_calls or self._is_asking:
                reason = FinishReason.TOOL_CALLS
        answer.finish_reason = reason

    # ---------------------------------------------------------------- events

    def _read(self, kind: str, event: _Event, data: bytes) -> None:
        if part_kind := _TEXTS.get(kind):
            self._grow_text(part_kind, event, data)
            return
        index = event.output_index or 0
        match kind:
            case "response.function_call_arguments.delta":
                call = self._items.get(index)
                if call is None or call.position < 0:
                    raise malformed("arguments of a call that has not begun", data)
                self._grow_arguments(call, event.delta or "")
            case "response.output_item.added" if event.item is not None:
                self._items[index] = self._begin_item(event.item)
            case "response.output_item.done" if event.item is not None:
                item = self._known(event.item, index)
                if item is None:
                    item = self._items[index] = self._begin_item(event.item)
                self._end_item(item, event.item, data)
            case "response.output_text.annotation.added":
                self._about(event).setdefault("annotations", []).append(event.annotation)
            case "response.output_text.done" if event.logprobs:
                self._about(event)["logprobs"] = msgspec.json.decode(event.logprobs)
            case _ if kind in _PART_ENDS:
                item, part_kind = self._items.get(index), text_of(event.part.get("type")) if event.part else ""
                if item is not None and event.part is not None and item.type == _HOLDERS.get(part_kind):
                    self._end_part(item, item.part(part_kind, event.number(part_kind)), event.part)
            case _ if kind in _ENDS:
                if event.response is None:
                    raise malformed("the last event does not hold the answer", data)
                self._learn(event.response)
                self._end(event.response, event.response.status or kind.removeprefix("response."), data)
            case _ if kind in _BEGINNINGS and event.response is not None:
                self._learn(event.response)
            case _ if kind not in _READ:
                self._pass_over(kind)
            case "error" | "":
                body = read_error(data)
                if body.type == "error":  # the type of the event, not of the error
                    body = replace(body, type="") if body.code or body.message else ErrorBody()
                raise malformed("an event is neither of this API nor an error", data) if body == ErrorBody() else _fault(data, body)

    def _pass_over(self, kind: str) -> None:
        self.answer.unknown_events += _PASSED_OVER.fullmatch(kind) is None

    def _about(self, event: _Event) -> Json:
        """What will follow the text that an event is about."""
        item = self._items.get(event.output_index or 0)
        return item.part("output_text", event.content_index).about if item is not None else {}

    def _learn(self, response: _Response) -> None:
        answer = self.answer
        answer.model = response.model or answer.model
        answer.provider_request_id = answer.provider_request_id or response.id or ""
        answer.usage = _usage(response.usage) or answer.usage

    def _end(self, response: _Response, status: str, data: bytes) -> None:
        """The answer has ended: with what it repeats of itself, with its reason, or with an error."""
        if response.error is not None:
            body = read_error(msgspec.json.encode({"error": response.error}))
            if body != ErrorBody():
                raise _fault(data, body)
        for index, raw in enumerate(response.output or ()):
            told = _item(raw)
            self._end_item(self._known(told, index) or self._begin_item(told), told, data)
        self._has_ended = True
        details = response.incomplete_details
        reason = text_of(details.get("reason")) if status == "incomplete" and isinstance(details, dict) else ""
        self.answer.native_finish_reason = reason or status

    # ---------------------------------------------------------------- items

    def _say(self, delta: Delta) -> None:
        self.answer.add(delta)
        self._deltas.append(delta)

    def _known(self, told: Json, index: int) -> _Item | None:
        """The item that is told once more: by its id, else by its number. Some servers number in two ways, others change the ids."""
        item = self._by_id.get(text_of(told.get("id"))) or self._items.get(index)
        return item if item is not None and item.type == told.get("type") else None

    def _begin_item(self, told: Json) -> _Item:
        self._leave()
        item = _Item(text_of(told.get("type")), text_of(told.get("id")))
        if item.id:
            self._by_id[item.id] = item
        self._has_reasoned = self._has_reasoned or item.type == "reasoning"
        if item.type == "function_call" and text_of(told.get("name")):
            item.position, self._calls = self._calls, self._calls + 1
            call_id = text_of(told.get("call_id")) or item.id or made_id()
            self._say(ToolCallDelta(position=item.position, id=call_id, name=told["name"]))
        return item

    def _end_item(self, item: _Item, told: Json, data: bytes) -> None:
        """An item is done. It may be told twice, at its own end and at the answer's: then all but a missing rest has been said."""
        if item.ends >= _MOST_ENDS:
            return
        match item.type:
            case "message":
                self._end_message(item, told)
            case "reasoning":
                self._end_reasoning(item, told)
            case "function_call":
                if item.position < 0:
                    raise malformed("a call of a function without its name", data)
                self._end_call(item, told)
            case _ if not item.ends:
                self._is_asking = self._is_asking or item.type in _CALLERS_TOOLS
                self._say(ProviderDataDelta(told))
        if self._open_item is item:
            self._leave()
        item.ends += 1

    def _end_message(self, item: _Item, told: Json) -> None:
        for part, whole in item.retold(told.get("content")):
            if part is not None:
                self._end_part(item, part, whole)
            elif not item.ends:
                item.has_spoken = True
                self._say(ProviderDataDelta(whole))
        about = {name: value for name, value in told.items() if name not in ("type", "role", "content") and value is not None}
        if about.get("status") == "completed":
            del about["status"]
        is_telling = len(about) > 1 or "id" not in about or self._has_reasoned
        if about and is_telling and item.has_spoken and not item.ends:
            self._leave()
            self._say(ProviderDataDelta(about))

    def _end_reasoning(self, item: _Item, told: Json) -> None:
        for part, whole in (*item.retold(told.get("summary")), *item.retold(told.get("content"))):
            if part is not None:
                self._end_part(item, part, whole)
        if item.ends:
            return
        # What the item's beginning says of its encrypted content may be incomplete: its end counts.
        encrypted = text_of(told.get("encrypted_content"))
        if encrypted or (item.id and not item.has_spoken):
            self._leave()
            self._say(ReasoningDelta(redacted_data=encrypted, id=item.id))

    def _end_call(self, item: _Item, told: Json) -> None:
        arguments = told.get("arguments")
        whole = arguments if isinstance(arguments, str) else "" if arguments is None else compact(arguments)
        self._grow_arguments(item, item.arguments.rest(whole))
        known = ("type", "status", "call_id", "name", "arguments")
        more = {name: value for name, value in told.items() if name not in known and value is not None}
        if not item.ends and (signature := call_signature(more)):
            self._say(ToolCallDelta(position=item.position, signature=signature))

    # ---------------------------------------------------------------- texts

    def _grow_text(self, kind: str, event: _Event, data: bytes) -> None:
        index = event.output_index or 0
        item = self._items.get(index)
        if item is None:  # nothing is missed where a server leaves out the beginning of a message or of reasoning
            item = self._items[index] = self._begin_item({"type": _HOLDERS[kind], "id": event.item_id})
        if item.type != _HOLDERS[kind]:
            raise malformed(f"a piece of {kind} inside an item of another type", data)
        if event.delta:
            self._grow(item, item.part(kind, event.number(kind)), event.delta)

    def _grow(self, item: _Item, part: _Part, piece: str) -> None:
        begins = part is not self._open
        if begins:
            self._leave()
            self._open, self._open_item = part, item
        part.say(piece)
        item.has_spoken = True
        if part.kind == "output_text":
            self._say(TextDelta(piece))
        elif part.kind == "refusal":
            self._has_refused = True
            self._say(RefusalDelta(piece))
        else:
            self._say(ReasoningDelta(text=piece, id=item.id if begins else ""))

    def _grow_arguments(self, item: _Item, piece: str) -> None:
        if piece:
            item.arguments.say(piece)
            self._say(ToolCallDelta(position=item.position, arguments_delta=piece))

    def _end_part(self, item: _Item, part: _Part, told: Json) -> None:
        """A text is done: what of it is missing, and what is said about it."""
        whole = text_of(told.get("refusal" if part.kind == "refusal" else "text"))
        if rest := part.rest(whole):
            self._grow(item, part, rest)
        if part.kind == "output_text" and not part.is_closed:
            part.about |= {name: told[name] for name in ("annotations", "logprobs") if told.get(name)}
            about = {name: value for name, value in part.about.items() if value}
            if about:
                self._leave()
                self._say(ProviderDataDelta(about))
            part.is_closed = True

    def _leave(self) -> None:
        """What comes next is another part of the answer."""
        part, self._open, self._open_item = self._open, None, None
        if part is not None:
            if part.kind == "reasoning_text":
                self._say(ReasoningDelta(signature=RAW))
            self.answer.seal()


def call_signature(about: Json) -> str:
    """What an item says of itself beside the call that it is, as the signature of that call: mostly its id alone."""
    id = about.get("id")
    if about.keys() == {"id"} and isinstance(id, str) and _ITEM_ID.fullmatch(id):
        return id
    return msgspec.json.encode(about).decode() if id else ""


def about_call(signature: str) -> Json:
    """The reverse; empty for a signature of another dialect's."""
    if _ITEM_ID.fullmatch(signature):
        return {"id": signature}
    try:
        about = msgspec.json.decode(signature, type=Json)
    except UNREADABLE:
        return {}
    return about if "id" in about else {}


def _type_of(name: str, data: bytes) -> str | None:
    """The type of an event that does not fit our struct; None where it has none."""
    try:
        return _type(data).type or name
    except UNREADABLE:
        return name or None


def _fault(data: bytes, body: ErrorBody) -> ProviderFault:
    return ProviderFault(error_inside(data, body))


def _list(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _usage(usage: Any) -> Usage | None:
    """Token counts, as this API counts: cached tokens are input, reasoning is output. Partial until the answer has ended properly."""
    if not isinstance(usage, dict):
        return None
    given, taken = clamp(usage.get("input_tokens")), clamp(usage.get("output_tokens"))
    given_in, taken_in = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        input_tokens=given,
        output_tokens=taken,
        total_tokens=clamp(usage.get("total_tokens")) or clamp(given + taken),
        cached_input_tokens=clamp(given_in.get("cached_tokens")) if isinstance(given_in, dict) else 0,
        reasoning_tokens=clamp(taken_in.get("reasoning_tokens")) if isinstance(taken_in, dict) else 0,
        source=UsageSource.PARTIAL,
    )
