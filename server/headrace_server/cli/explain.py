"""`headrace explain`: what `headrace generate` would do, without doing it."""

from typing import TYPE_CHECKING

import typer

from headrace_server.cli.client import DEFAULT_SERVER, AsJson, Server, connection, echo_json, seconds
from headrace_server.cli.generate import MaxTokens, Model, Prompt, Provider, System, Temperature, Timeout, request_of
from headrace_server.cli.quotas import echo_quotas

if TYPE_CHECKING:
    from headrace.v1 import generation_service_pb2


def explain(
    prompt: Prompt,
    provider: Provider = "",
    model: Model = "",
    system: System = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    timeout: Timeout = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Say who would be asked, who would be passed over and why, and how long it would wait. Exit code 1 where nobody would be asked."""
    from headrace.v1 import generation_service_pb2, generation_service_pb2_grpc

    asked = generation_service_pb2.ExplainGenerationRequest(
        request=request_of(prompt, provider, model, system, max_tokens, temperature),
    )
    with connection(server) as channel:
        plan = generation_service_pb2_grpc.GenerationServiceStub(channel).ExplainGeneration(asked, timeout=timeout)
    if as_json:
        echo_json(plan)
    else:
        _describe(plan)
    if not plan.HasField("expected_wait"):
        raise typer.Exit(1)


def _describe(plan: "generation_service_pb2.ExplainGenerationResponse") -> None:
    for violation in plan.field_violations:
        typer.echo(f"{violation.field}: {violation.description}")
    for number, planned in enumerate(plan.providers, start=1):
        typer.echo(
            f"{number}. {planned.provider}/{planned.model}" + (f" is passed over: {planned.skip_reason}" if planned.skip_reason else "")
        )
    if plan.HasField("expected_wait"):
        typer.echo(f"would begin after {seconds(plan.expected_wait)}" if plan.expected_wait.ToMilliseconds() else "would begin at once")
    else:
        typer.echo("nobody would be asked")
    if quotas := [quota for planned in plan.providers for quota in planned.quotas]:
        echo_quotas(quotas)
