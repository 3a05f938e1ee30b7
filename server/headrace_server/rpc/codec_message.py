"""Parts of messages and answers, between protobuf and the domain."""

from typing import Any

from headrace.v1 import message_pb2 as pb
from headrace_server.domain.message import (
    ContentPart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from headrace_server.domain.violations import Loc
from headrace_server.rpc.codec_values import Wrong, dict_of_struct, struct_of_dict, utf8

_IN_TOOL_RESULTS = frozenset({"text", "image", "provider_data"})


def part_fields(part: pb.ContentPart, at: Loc, wrong: Wrong) -> dict[str, Any]:
    """A part as the fields of its domain type. One of which nothing is set (or nothing known) has none: the domain refuses it."""
    match part.WhichOneof("part"):
        case "text":
            return {"type": "text", "text": part.text}
        case "image":
            image = part.image
            fields: dict[str, Any] = {"type": "image", "media_type": image.media_type}
            source = image.WhichOneof("source")
            if source is not None:
                fields[source] = image.data if source == "data" else image.uri
            return fields
        case "tool_call":
            call = part.tool_call
            return {
                "type": "tool_call",
                "id": call.id,
                "name": call.name,
                "arguments_json": call.arguments_json,
                "signature": call.signature,
            }
        case "tool_result":
            result = part.tool_result
            inner = (*at, "tool_result", "content")
            return {
                "type": "tool_result",
                "tool_call_id": result.tool_call_id,
                "content": [_inner_part_fields(p, (*inner, i), wrong) for i, p in enumerate(result.content)],
                "is_error": result.is_error,
            }
        case "reasoning":
            reasoning = part.reasoning
            return {
                "type": "reasoning",
                "text": reasoning.text,
                "signature": reasoning.signature,
                "redacted_data": reasoning.redacted_data,
                "id": reasoning.id,
            }
        case "refusal":
            return {"type": "refusal", "refusal": part.refusal}
        case "provider_data":
            return {"type": "provider_data", "provider_data": dict_of_struct(part.provider_data, (*at, "provider_data"), wrong)}
    return {}


def _inner_part_fields(part: pb.ContentPart, at: Loc, wrong: Wrong) -> dict[str, Any]:
    kind = part.WhichOneof("part")
    # Results of tools do not nest: the kind alone is enough for the domain to refuse the others.
    return part_fields(part, at, wrong) if kind is None or kind in _IN_TOOL_RESULTS else {"type": kind}


def encode_part(part: ContentPart) -> pb.ContentPart:
    """A part in protobuf."""
    match part:
        case TextPart():
            return pb.ContentPart(text=utf8(part.text))
        case ImagePart():
            if part.data is not None:
                return pb.ContentPart(image=pb.Image(media_type=part.media_type, data=part.data))
            return pb.ContentPart(image=pb.Image(media_type=part.media_type, uri=part.uri or ""))
        case ToolCallPart():
            call = pb.ToolCall(
                id=utf8(part.id), name=utf8(part.name), arguments_json=utf8(part.arguments_json), signature=utf8(part.signature)
            )
            return pb.ContentPart(tool_call=call)
        case ToolResultPart():
            result = pb.ToolResult(
                tool_call_id=part.tool_call_id, content=[encode_part(inner) for inner in part.content], is_error=part.is_error
            )
            return pb.ContentPart(tool_result=result)
        case ReasoningPart():
            reasoning = pb.Reasoning(
                text=utf8(part.text), signature=utf8(part.signature), redacted_data=utf8(part.redacted_data), id=utf8(part.id)
            )
            return pb.ContentPart(reasoning=reasoning)
        case RefusalPart():
            return pb.ContentPart(refusal=utf8(part.refusal))
        case ProviderDataPart():
            return pb.ContentPart(provider_data=struct_of_dict(part.provider_data))
