"""Writes the wire vectors to tests/clients/vectors: messages in the binary form and in JSON, which the clients of every language read and
write again; with --check it only says whether they are what this file says.

They are fixed: a field that is added to the contract changes none of them. No map has more than one entry, so that every language writes
the same bytes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.v1 import (
    analytics_service_pb2,
    event_pb2,
    generation_service_pb2,
    message_pb2,
    provider_service_pb2,
    request_pb2,
    request_service_pb2,
    result_pb2,
)

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "clients" / "vectors"

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TIME = {"seconds": 1_795_000_000, "nanos": 123_000_000}
BEFORE_1970 = {"seconds": -1, "nanos": 999_999_999}
BIG = 2**63 - 1
UNICODE = 'Grüße, 世界! \U0001f30a e\u0301 \u202eabc "quoted" \\ / \t\n\u2028'
SCHEMA = '{"type":"object","properties":{"city":{"type":"string"},"n":{"type":"integer","maximum":12345678901234567890}}}'

USAGE = {"input_tokens": 41, "output_tokens": 23, "total_tokens": 64, "cached_input_tokens": 8, "reasoning_tokens": 5, "source": 1}
CALL = {"id": "call_1", "name": "get_weather", "arguments_json": '{"city":"Paris"}', "signature": "c2ln"}
REASONING = {"text": "Let me think.", "signature": "c2lnbmF0dXJl", "redacted_data": "cmVkYWN0ZWQ=", "id": "rs_1"}
LIMIT = {"retry_after": {"seconds": 7}, "limit": BIG, "remaining": 0, "reset_time": TIME}
ATTEMPT = {
    **{"provider": "claude", "model": "claude-sonnet-5-5", "state": 8, "usage": {"input_tokens": 41, "source": 2}, "start_time": TIME},
    **{"duration": {"nanos": 1_000_000}, "replay_safety": 3},
    "error": {"request_id": ID, "message": "overloaded", "code": 4, "subreason": "OVERLOADED", "http_status": 529, "retryable": True},
}
RESULT = {
    **{"content": [{"text": "A river carries water."}], "finish_reason": 1, "native_finish_reason": "end_turn", "usage": USAGE},
    **{"provider": "claude", "model": "claude-sonnet-5-5-20261001", "duration": {"seconds": 1, "nanos": 500_000_000}},
    **{"first_token_latency": {"nanos": 250_000_000}, "attempts": [ATTEMPT], "cost": 1_234},
    "fallback": {"provider": "openai", "model": "gpt-6.1-sol", "reason": "circuit open"},
}
ERROR = {
    **{"request_id": ID, "message": UNICODE, "code": 3, "subreason": "NEVER_FITS", "provider": "openai", "http_status": 429},
    **{"provider_type": "tokens", "provider_code": "rate_limit_exceeded", "retryable": True, "rate_limit": LIMIT, "attempts": [ATTEMPT]},
    **{"partial": RESULT, "field_violations": [{"field": "messages[1].content[0].image.uri", "description": "must be an https address"}]},
    "provider_request_id": "req_011CVQe1dLrGNMJyE1ghG1av",
}
TRANSITION = {
    **{"from_state": 3, "to_state": 5, "event": 4, "time": TIME, "attempt": 1, "provider": "openai", "model": "gpt-6.1-sol"},
    **{"reason": "over the limit of 50 requests per minute", "wait": {"seconds": 6, "nanos": 596_000_000}},
}
HELLO = {"role": 1, "content": [{"text": "What does a river do?"}]}
PROVIDER = {
    **{"id": ID, "provider": "mine", "dialect": 3, "enabled": True, "priority": 7, "has_api_key": True, "api_key_last_four": "cdef"},
    **{"api_url": "http://127.0.0.1:8080/v1", "default_model": "llama", "max_retries": 3, "timeout_ms": 30_000, "rate_limit_rpm": 50},
    **{"rate_limit_tpm": BIG, "rate_limit_rpd": 1, "fallback_providers": ["claude", "gemini"], "config_json": '{"api":"chat"}'},
    **{"created_at": TIME, "updated_at": TIME, "source": 2},
    "health": {"circuit_state": 2, "circuit_retry_time": TIME, "error_rate": 0.25, "latency": {"nanos": 120_000_000}, "calls": 8},
}
QUOTA = {"provider": "openai", "model": "gpt-6.1-sol", "limit_type": 2, "used": 22_343, "reserved": 0, "limit": BIG, "reset_time": TIME}
RECORD = {
    **{"id": ID, "request_id": ID, "conversation_id": ID, "user_id": "ada", "provider": "claude", "model": "claude-sonnet-5-5", "state": 8},
    **{"request_data": {"request_id": ID, "messages": [HELLO]}, "response_data": RESULT, "error_message": "overloaded", "error_code": 4},
    **{"start_time": TIME, "end_time": TIME, "duration": {"seconds": 2}, "retry_attempt": 2, "tags": ["nightly", ""], "owner": "batch"},
    **{
        "request_fingerprint": "ab" * 32,
        "attempts": [ATTEMPT],
        "transitions": [TRANSITION],
        "trace_id": "0e33d9cdd24dc488ae84275189ef5f70",
    },
    **{"node": "host-4711-1f00d5e1", "created_at": TIME, "updated_at": TIME, "error": {"code": 4, "message": "overloaded"}},
}


def _request(**fields: Any) -> Message:
    return request_pb2.GenerateRequest(**fields)


def _said(**part: Any) -> Message:
    return message_pb2.ChatMessage(role=2, content=[part])


def _event(**event: Any) -> Message:
    return event_pb2.GenerationEvent(request_id=ID, **event)


def _chunk(**chunk: Any) -> Message:
    return _event(chunk={"index": 3, "attempt": 1, "merged": 2, **chunk})


def messages() -> dict[str, Message]:
    """Every vector by its name."""
    pb, providers, records, analytics = generation_service_pb2, provider_service_pb2, request_service_pb2, analytics_service_pb2
    samples: dict[str, Message] = {
        # ---- requests
        "request_empty": _request(),
        "request_least": _request(messages=[HELLO]),
        "request_unicode": _request(request_id=ID, messages=[{"role": 1, "content": [{"text": UNICODE}]}]),
        "request_zeros_that_are_set": _request(
            max_tokens=0, temperature=0.0, top_p=0.0, top_k=0, seed=0, parallel_tool_calls=False, fallback={"enabled": False}, retry={}
        ),
        "request_sampling": _request(
            **{"provider": "claude", "model": "claude-sonnet-5-5", "messages": [HELLO], "max_tokens": 2**31 - 1, "temperature": 0.1},
            **{"top_p": 1e-7, "top_k": 40, "seed": -(2**63), "stop_sequences": ["\n\n", "END"], "parallel_tool_calls": True},
        ),
        "request_tools": _request(
            messages=[HELLO],
            tools=[
                {"name": "get_weather", "description": "The weather.", "parameters_json": SCHEMA, "strict": False},
                {"name": "now", "parameters_json": '{"type":"object"}'},
            ],
            tool_choice={"name": "get_weather"},
        ),
        "request_tool_mode": _request(messages=[HELLO], tool_choice={"mode": 3}),
        "request_json_schema": _request(
            messages=[HELLO], response_format={"json_schema": {"name": "weather", "schema_json": SCHEMA, "strict": True}}
        ),
        "request_json_object": _request(messages=[HELLO], response_format={"json_object": {}}),
        "request_text": _request(messages=[HELLO], response_format={"text": {}}),
        "request_reasoning_effort": _request(messages=[HELLO], reasoning={"effort": 4, "hide": True}),
        "request_reasoning_budget": _request(messages=[HELLO], reasoning={"budget_tokens": 1_024}),
        "request_policies": _request(
            messages=[HELLO],
            metadata={"conversation_id": ID, "user_id": "ada", "tags": ["nightly", "", "日本"]},
            retry={
                **{"strategy": 2, "max_attempts": 5, "initial_delay": {"nanos": 1}, "max_delay": {"seconds": 30}},
                "backoff_multiplier": 1.5,
            },
            fallback={"enabled": True, "providers": ["openai", "gemini"], "model_mapping": {"a": "b"}, "mid_stream": 2},
            timeouts={
                **{"first_token": {"seconds": 30}, "idle": {"seconds": 1, "nanos": 500_000_000}},
                **{"progress": {"nanos": 1_000_000}, "total": {"seconds": 315_576_000_000}},
            },
            on_disconnect=3,
            quiet=True,
            timing=True,
        ),
        "request_provider_options": _request(provider_options={"top_logprobs": [1, 2.5, -0.125, None, True, "x", {"deep": [[]]}]}),
        # ---- parts
        "part_text_empty": _said(text=""),
        "part_image_data": message_pb2.ChatMessage(
            role=1, content=[{"image": {"media_type": "image/png", "data": bytes(range(256))}}, {"image": {"data": b""}}]
        ),
        "part_image_uri": message_pb2.ChatMessage(role=1, content=[{"image": {"uri": "https://example.com/river.png?a=1&b=%20"}}]),
        "part_tool_call": _said(tool_call=CALL),
        "part_tool_result": message_pb2.ChatMessage(
            role=4,
            content=[{"tool_result": {"tool_call_id": "call_1", "content": [{"text": "sunny"}, {"image": {"uri": ""}}], "is_error": True}}],
        ),
        "part_reasoning": _said(reasoning=REASONING),
        "part_refusal": _said(refusal="I cannot help with that."),
        "part_provider_data": _said(provider_data={"web_search_call": {"status": "completed"}}),
        "part_not_set": _said(),
        # ---- events
        "event_transition": _event(transition=TRANSITION),
        "event_first_transition": _event(transition={"from_state": 1, "to_state": 2, "event": 1, "time": {}}),
        "event_text": _chunk(text=UNICODE),
        "event_text_empty": _chunk(text=""),
        "event_reasoning": _chunk(reasoning=REASONING),
        "event_tool_call": _chunk(
            tool_call={"position": 1, "id": "call_1", "name": "get_weather", "arguments_delta": '{"ci', "signature": "c2ln"}
        ),
        "event_refusal": _chunk(refusal="I "),
        "event_provider_data": _chunk(provider_data={"annotations": [{"start": 12_345_678_901}]}),
        "event_last_chunk": _event(chunk={"index": 2**31 - 1, "finish_reason": 3, "timing": {"received": TIME, "sent": BEFORE_1970}}),
        "event_discontinuity": _event(
            discontinuity={"attempt": 2, "provider": "gemini", "model": "gemini-3.8-flash", "discard_from_index": 4, "reason": "reset"}
        ),
        "event_completed": _event(completed=RESULT),
        "event_completed_empty": _event(completed={"cost": 0}),
        "event_failed": _event(failed=ERROR),
        "event_not_set": _event(),
        # ---- commands and answers
        "command_generate": pb.StreamGenerateRequest(generate={"request_id": ID, "messages": [HELLO]}),
        "command_resume": pb.StreamGenerateRequest(resume={"request_id": ID, "next_index": 17}),
        "command_cancel": pb.StreamGenerateRequest(cancel={"request_id": ID}),
        "stream_of_two": pb.StreamGenerateResponse(
            events=[{"request_id": ID, "chunk": {"text": "a"}}, {"request_id": ID[:-1] + "8", "chunk": {"index": 1, "text": "b"}}]
        ),
        "generate_response": pb.GenerateResponse(request_id=ID, result=RESULT),
        "submitted": pb.SubmitGenerationResponse(request_id=ID, state=3),
        "explained": pb.ExplainGenerationResponse(
            providers=[{"provider": "openai", "model": "m", "skip_reason": "circuit open", "quotas": [QUOTA]}], expected_wait={"seconds": 3}
        ),
        "error_alone": result_pb2.ProviderError(code=12, message="the process ended"),
        # ---- records, providers, sums
        "record": records.GetRequestResponse(request=RECORD),
        "list_requests": records.ListRequestsRequest(
            **{"page_size": 50, "page_token": "bmV4dA==", "state": 8, "tag": "nightly", "error_code": 4, "start_time": TIME, "end_time": {}}
        ),
        "watched": records.WatchRequestResponse(transition=TRANSITION),
        "provider": providers.GetProviderResponse(provider=PROVIDER),
        "provider_zeros_that_are_set": providers.CreateProviderRequest(
            provider={"provider": "mine", "dialect": 1, "enabled": False, "priority": 0, "health": {"error_rate": 0.0}}
        ),
        "update_provider": providers.UpdateProviderRequest(
            provider={"provider": "mine", "priority": 7}, update_mask={"paths": ["priority", "rate_limit_rpm"]}
        ),
        "checked": providers.CheckProviderResponse(latency={"nanos": 6_000_000}, error=ERROR),
        "quotas": providers.ListQuotasResponse(quotas=[QUOTA, {}], next_page_token="x"),
        "usage": analytics.GetUsageResponse(
            groups=[{"day": {"seconds": 1_794_960_000}, "tag": "", "request_count": BIG, "total_tokens": 2**53 + 1, "cost_micro_usd": 0}]
        ),
        "usage_dimensions": analytics.GetUsageRequest(range={"start_time": BEFORE_1970}, group_by=[1, 4, 5]),
        "success_rates": analytics.ListSuccessRatesResponse(
            success_rates=[{"success_rate": 100 / 3, "retry_rate": 5e-324, "fallback_rate": 1.7976931348623157e308, "cost_micro_usd": -1}]
        ),
    }
    return {f"{number:02}_{name}": message for number, (name, message) in enumerate(samples.items(), start=1)}


def files() -> dict[Path, bytes]:
    """Each file with the bytes that it should have."""
    made = messages()
    index = [{"name": name, "type": message.DESCRIPTOR.full_name} for name, message in made.items()]
    written = {FOLDER / "index.json": "[\n" + ",\n".join("  " + json.dumps(row) for row in index) + "\n]\n"}
    for name, message in made.items():
        as_json = json_format.MessageToDict(message)
        written[FOLDER / f"{name}.json"] = json.dumps(as_json, indent=2, ensure_ascii=False) + "\n"
    binary = {FOLDER / f"{name}.binpb": message.SerializeToString(deterministic=True) for name, message in made.items()}
    return binary | {path: text.encode() for path, text in written.items()}


def _vectors() -> list[Path]:
    return [path for path in FOLDER.glob("*") if not path.name.startswith(".")]


def stale() -> list[str]:
    """The files that are missing, differ, or belong to no vector."""
    wanted = files()
    found = {path: path.read_bytes() for path in _vectors()}
    return sorted(path.name for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def main() -> None:
    """Write the files, or check them."""
    if "--check" in sys.argv[1:]:
        if wrong := stale():
            sys.exit("not what tools/vectors.py says: " + ", ".join(wrong))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in _vectors():
        path.unlink()
    for path, content in files().items():
        path.write_bytes(content)
    print(f"wrote {len(messages())} vectors to {FOLDER.relative_to(FOLDER.parent.parent.parent)}")


if __name__ == "__main__":
    main()
