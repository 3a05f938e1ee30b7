import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter

from headrace_server.domain.errors import ErrorCode, Fault, RateLimitInfo, Violation
from headrace_server.domain.events import (
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
)
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.machine import Context, advance_all
from headrace_server.domain.message import (
    ChatMessage,
    ImagePart,
    MessageRole,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from headrace_server.domain.provider import Dialect, ProviderRow
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import (
    FallbackConfig,
    GenerateRequest,
    JsonSchemaFormat,
    ReasoningConfig,
    ReasoningEffort,
    RequestMetadata,
    RetryConfig,
    Timeouts,
    Tool,
    ToolChoice,
)
from headrace_server.domain.result import Attempt, FallbackInfo, FinishReason, GenerationResult, ProviderError
from headrace_server.domain.retry import RetryStrategy
from headrace_server.domain.usage import Usage, UsageSource

ROOT = Path(__file__).parent.parent.parent
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

RETRY = RetryConfig(strategy=RetryStrategy.LINEAR, max_attempts=2, initial_delay=5, max_delay=9, backoff_multiplier=1.5)
REQUEST = GenerateRequest(
    request_id=ID,
    provider="claude",
    model="m",
    messages=(
        ChatMessage(role=MessageRole.SYSTEM, content=(TextPart(text="s"),)),
        ChatMessage(role=MessageRole.USER, content=(ImagePart(data=b"\x89PNG\xff", media_type="image/png"), ImagePart(uri="https://x"))),
        ChatMessage(
            role=MessageRole.ASSISTANT,
            content=(
                ReasoningPart(text="r", signature="s"),
                ToolCallPart(id="c", name="t"),
                RefusalPart(refusal="no"),
                ProviderDataPart(provider_data={"a": [1, None, {"b": 0.5}]}),
            ),
        ),
        ChatMessage(role=MessageRole.TOOL, content=(ToolResultPart(tool_call_id="c", content=(TextPart(text="x"),)),)),
    ),
    temperature=0.5,
    tools=(Tool(name="t", parameters_json="{}", strict=True),),
    tool_choice=ToolChoice(name="t"),
    response_format=JsonSchemaFormat(name="s", schema_json="{}"),
    reasoning=ReasoningConfig(effort=ReasoningEffort.LOW),
    metadata=RequestMetadata(conversation_id=ID, tags=("a",)),
    retry=RETRY,
    fallback=FallbackConfig(providers=("gemini",), model_mapping={"m": "n"}),
    timeouts=Timeouts(idle=5),
    provider_options={"x": 1},
)
CAUSE = ProviderError(
    code=ErrorCode.RATE_LIMIT_EXCEEDED,
    message="slow down",
    http_status=429,
    rate_limit=RateLimitInfo(retry_after=5, limit=1),
    field_violations=(Violation(field="f", description="d"),),
)
ATTEMPT = Attempt(provider="claude", model="m", state=State.FAILED, error=CAUSE, start_time=1, duration=2)
RESULT = GenerationResult(
    content=(TextPart(text="x"), ToolCallPart(name="t")),
    finish_reason=FinishReason.TOOL_CALLS,
    usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3, source=UsageSource.PROVIDER),
    attempts=(ATTEMPT,),
    fallback=FallbackInfo(provider="gemini", model="n"),
    cost=7,
)
ERROR = CAUSE.model_copy(update={"attempts": (ATTEMPT,), "partial": RESULT})
CONTEXT, _ = advance_all(
    Context(request_id=ID, tags=("a",), last_error=Fault(code=ErrorCode.TIMEOUT, message="late", rate_limit=RateLimitInfo(limit=1))),
    [(Event.INITIATE_REQUEST, 1), (Event.VALIDATION_PASSED, 2), (Event.REQUEST_FAILED, 3)],
)
ROW = LogRow(
    id=ID,
    request_id=ID,
    state=State.FAILED,
    request_data=REQUEST,
    response_data=RESULT,
    error=CAUSE,
    error_code=CAUSE.code,
    attempts=(ATTEMPT,),
    transitions=CONTEXT.history,
    start_time=1,
    created_at=1,
    updated_at=2,
)
PROVIDER = ProviderRow(
    id=ID, provider="claude", dialect=Dialect.CLAUDE, api_url="https://x", default_model="m", rate_limit_rpm=5, created_at=1, updated_at=2
)
DELTAS = (
    TextDelta("x"),
    ReasoningDelta(text="r", signature="s"),
    ToolCallDelta(position=0, id="c", name="t"),
    RefusalDelta("no"),
    ProviderDataDelta({"a": [1]}),
    None,
)
VALUES: list[Any] = [
    REQUEST,
    RESULT,
    ERROR,
    RETRY,
    CONTEXT,
    ROW,
    PROVIDER,
    *(StreamChunk(index=i, delta=delta, attempt=1, finish_reason=FinishReason.STOP) for i, delta in enumerate(DELTAS)),
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes the schemas."""
    spec = importlib.util.spec_from_file_location("headrace_schemas", ROOT / "tools" / "schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def in_json(value: Any) -> Any:
    return json.loads(TypeAdapter(type(value)).dump_json(value))


def test_the_schemas_are_those_of_the_types(generator: ModuleType) -> None:
    assert generator.stale() == []
    assert {kind.__name__ for kind in generator.TYPES} == {type(value).__name__ for value in VALUES}


def test_every_schema_is_explained(generator: ModuleType) -> None:
    text = (ROOT / "docs" / "schemas" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{kind.__name__}.json`" in text for kind in generator.TYPES)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_obeys_its_schema_and_comes_back_the_same(value: Any) -> None:
    validator(type(value).__name__).validate(in_json(value))
    assert TypeAdapter(type(value)).validate_python(in_json(value)) == value


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (REQUEST, {"messages": []}),
        (REQUEST, {"temperature": 3}),
        (REQUEST, {"max_tokens": 0}),
        (REQUEST, {"provider": "Not Ok"}),
        (REQUEST, {"messages": [{"role": "nobody", "content": [{"type": "text", "text": "x"}]}]}),
        (REQUEST, {"messages": [{"role": "user", "content": [{"type": "smell", "text": "x"}]}]}),
        (REQUEST, {"unknown": 1}),
        (REQUEST, {"retry": {"max_attempts": 0}}),
        (RESULT, {"finish_reason": "bored"}),
        (RESULT, {"duration": -1}),
        (RESULT, {"usage": {"input_tokens": -1}}),
        (ERROR, {"code": "oops"}),
        (ERROR, {"http_status": 1_000}),
        (ERROR, {"rate_limit": {"retry_after": 0}}),
        (RETRY, {"strategy": "fibonacci"}),
        (RETRY, {"backoff_multiplier": 0}),
        (CONTEXT, {"state": "dreaming"}),
        (CONTEXT, {"attempt": "x"}),
        (ROW, {"state": None}),
        (ROW, {"trace_id": "xyz"}),
        (ROW, {"transitions": [{}]}),
        (PROVIDER, {"dialect": "klingon"}),
        (PROVIDER, {"rate_limit_rpm": 0}),
        (VALUES[-1], {"index": -1}),
        (VALUES[-1], {"delta": {"smell": "x"}}),
    ],
)
def test_a_wrong_value_breaks_its_schema_and_its_type_alike(value: Any, change: dict[str, Any]) -> None:
    wrong = {**in_json(value), **change}
    assert not validator(type(value).__name__).is_valid(wrong)
    with pytest.raises(ValueError, match="validation error"):
        TypeAdapter(type(value)).validate_python(wrong)


def test_a_stale_schema_is_noticed(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "FOLDER", tmp_path)
    for path, text in generator.files().items():
        path.write_text(text, encoding="utf-8")
    assert generator.stale() == []
    (tmp_path / "RetryConfig.json").write_text("{}", encoding="utf-8")
    (tmp_path / "Gone.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in generator.stale()] == ["Gone.json", "RetryConfig.json"]
