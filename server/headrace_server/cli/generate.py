"""`headrace generate`: one answer, streamed to the terminal."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace_server.cli.client import DEFAULT_SERVER, AsJson, Server, connection, echo_json

if TYPE_CHECKING:
    from headrace.v1 import request_pb2

Prompt = Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")]
Provider = Annotated[str, typer.Option(help="Name of a provider; empty: the service chooses.")]
Model = Annotated[str, typer.Option(help="Empty: the provider's default model.")]
System = Annotated[str, typer.Option(help="A system message that comes first.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer.")]
Temperature = Annotated[float | None, typer.Option(help="0 to 2.")]
Timeout = Annotated[float | None, typer.Option(help="Deadline, in seconds.")]


def generate(
    prompt: Prompt,
    provider: Provider = "",
    model: Model = "",
    system: System = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    timeout: Timeout = None,
    server: Server = DEFAULT_SERVER,
    states: Annotated[bool, typer.Option("--states", help="Show each state on stderr.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stream an answer: its text to stdout, a summary to stderr; with --json one event a line."""
    from headrace.v1 import generation_service_pb2, generation_service_pb2_grpc
    from headrace_server.cli.events import EventPrinter

    asked = request_of(prompt, provider, model, system, max_tokens, temperature)
    asked.quiet = not (states or as_json)
    printer = EventPrinter(states=states)
    with connection(server) as channel:
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        commands = iter([generation_service_pb2.StreamGenerateRequest(generate=asked)])
        call = stub.StreamGenerate(commands, timeout=timeout)
        try:
            for response in call:
                for event in response.events:
                    if as_json:
                        echo_json(event)
                    else:
                        printer.show(event)
                        sys.stdout.flush()
        except KeyboardInterrupt:
            call.cancel()
            raise typer.Exit(130) from None


def request_of(
    prompt: str, provider: str, model: str, system: str, max_tokens: int | None, temperature: float | None
) -> "request_pb2.GenerateRequest":
    """The request that a person's options make."""
    from headrace.v1 import message_pb2, request_pb2

    def message(role: message_pb2.MessageRole.ValueType, text: str) -> message_pb2.ChatMessage:
        return message_pb2.ChatMessage(role=role, content=[message_pb2.ContentPart(text=text)])

    text = sys.stdin.read() if prompt == "-" else prompt
    messages = [message(message_pb2.MESSAGE_ROLE_SYSTEM, system)] if system else []
    return request_pb2.GenerateRequest(
        provider=provider,
        model=model,
        messages=[*messages, message(message_pb2.MESSAGE_ROLE_USER, text)],
        max_tokens=max_tokens,
        temperature=temperature,
    )
