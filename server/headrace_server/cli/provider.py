"""`headrace provider`: the providers of a running service."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace_server.cli.client import DEFAULT_SERVER, AsJson, Server, clock, connection, echo_json, echo_table, number, seconds, word

if TYPE_CHECKING:
    from headrace.v1 import provider_service_pb2

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show and change the providers of a running service.")

Name = Annotated[str, typer.Argument(help="Name of the provider.")]
ApiKeyEnv = Annotated[str | None, typer.Option(help="Environment variable, here, that holds the API key.")]
AskApiKey = Annotated[bool, typer.Option("--ask-api-key", help="Ask for the API key; it is not shown.")]
ApiUrl = Annotated[str | None, typer.Option(help="Base URL, as the provider's own SDK calls it.")]
DefaultModel = Annotated[str | None, typer.Option(help="Model of requests that name none.")]
Priority = Annotated[int | None, typer.Option(help="Lower numbers are asked first.")]
MaxRetries = Annotated[int | None, typer.Option(help="Most calls to it for one request.")]
TimeoutMs = Annotated[int | None, typer.Option(help="Bounds connecting, the first token, and silence; milliseconds.")]
Rpm = Annotated[int | None, typer.Option("--rate-limit-rpm", help="Most requests a minute.")]
Tpm = Annotated[int | None, typer.Option("--rate-limit-tpm", help="Most tokens a minute.")]
Rpd = Annotated[int | None, typer.Option("--rate-limit-rpd", help="Most requests a day.")]
Fallback = Annotated[list[str] | None, typer.Option("--fallback", help="Who stands in for it; may be repeated.")]
Api = Annotated[str | None, typer.Option(help="Of the dialect openai: chat or responses.")]
Zone = Annotated[str | None, typer.Option(help="Whose calendar days the daily limit counts, such as Europe/Paris.")]


@app.command("list", epilog="\b\nExample:\n  headrace provider list")
def list_(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List all providers, by priority."""
    from headrace.v1 import provider_service_pb2 as pb

    found, token = [], ""
    with connection(server) as channel:
        while True:
            page = _stub(channel).ListProviders(pb.ListProvidersRequest(page_size=1000, page_token=token))
            found += page.providers
            if not (token := page.next_page_token):
                break
    if as_json:
        for provider in found:
            echo_json(provider)
        return
    echo_table(
        ("PROVIDER", "DIALECT", "ENABLED", "PRIORITY", "KEY", "MODEL", "FROM", "CIRCUIT", "ERRORS", "LATENCY", "URL"),
        [
            (
                p.provider,
                word(pb.Dialect, p.dialect),
                "yes" if p.enabled else "no",
                str(p.priority),
                _key(p),
                p.default_model,
                word(pb.ProviderSource, p.source),
                *_health(p.health),
                p.api_url,
            )
            for p in found
        ],
    )


@app.command("get", epilog="\b\nExample:\n  headrace provider get claude")
def get(name: Name, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show one provider: its settings, and how it has done in the last minute."""
    from headrace.v1 import provider_service_pb2 as pb

    with connection(server) as channel:
        provider = _stub(channel).GetProvider(pb.GetProviderRequest(provider=name)).provider
    if as_json:
        echo_json(provider)
    else:
        _describe(provider)


@app.command(
    "add", epilog="\b\nExample:\n  headrace provider add local --dialect openai --api-url http://127.0.0.1:8080/v1 --default-model llama"
)
def add(
    name: Name,
    dialect: Annotated[str, typer.Option(help="claude, gemini or openai.")],
    default_model: Annotated[str, typer.Option(help="Model of requests that name none.")],
    api_url: ApiUrl = None,
    api_key_env: ApiKeyEnv = None,
    ask_api_key: AskApiKey = False,
    priority: Priority = None,
    max_retries: MaxRetries = None,
    timeout_ms: TimeoutMs = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    fallback: Fallback = None,
    api: Api = None,
    zone: Zone = None,
    enabled: Annotated[bool, typer.Option("--enabled/--disabled", help="Whether routing uses it.")] = True,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Add a provider. Its API key comes from a variable or a prompt, never from the command line."""
    from headrace.v1 import provider_service_pb2 as pb

    provider = pb.Provider(
        provider=name,
        dialect=pb.Dialect.ValueType(number(pb.Dialect, dialect)),
        default_model=default_model,
        api_url=api_url or "",
        api_key=_api_key(api_key_env, ask_api_key) or "",
        enabled=enabled,
        priority=priority,
        max_retries=max_retries,
        timeout_ms=timeout_ms,
        rate_limit_rpm=rpm,
        rate_limit_tpm=tpm,
        rate_limit_rpd=rpd,
        fallback_providers=fallback,
        config_json=_config_json("", api, zone),
    )
    with connection(server) as channel:
        _show(_stub(channel).CreateProvider(pb.CreateProviderRequest(provider=provider)).provider, as_json)


@app.command("set", epilog="\b\nExample:\n  headrace provider set openai --api-key-env OPENAI_API_KEY --rate-limit-rpm 500")
def set_(
    name: Name,
    default_model: DefaultModel = None,
    api_url: ApiUrl = None,
    api_key_env: ApiKeyEnv = None,
    ask_api_key: AskApiKey = False,
    priority: Priority = None,
    max_retries: MaxRetries = None,
    timeout_ms: TimeoutMs = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    fallback: Fallback = None,
    api: Api = None,
    zone: Zone = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether routing uses it.")] = None,
    unset: Annotated[list[str] | None, typer.Option(help="Field that goes back to its default, such as rate_limit_rpm, api_key.")] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change settings of a provider; effective for the next request."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.v1 import provider_service_pb2 as pb

    changes: dict[str, Any] = {
        "default_model": default_model,
        "api_url": api_url,
        "api_key": _api_key(api_key_env, ask_api_key),
        "enabled": enabled,
        "priority": priority,
        "max_retries": max_retries,
        "timeout_ms": timeout_ms,
        "rate_limit_rpm": rpm,
        "rate_limit_tpm": tpm,
        "rate_limit_rpd": rpd,
        "fallback_providers": fallback or None,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    with connection(server) as channel:
        stub = _stub(channel)
        if api or zone:
            current = stub.GetProvider(pb.GetProviderRequest(provider=name)).provider.config_json
            changes["config_json"] = _config_json(current, api, zone)
        if not changes and not unset:
            raise typer.BadParameter("nothing to change was named")
        mask = FieldMask(paths=[*changes, *(unset or ())])
        asked = pb.UpdateProviderRequest(provider=pb.Provider(provider=name, **changes), update_mask=mask)
        _show(stub.UpdateProvider(asked).provider, as_json)


@app.command("disable", epilog="\b\nExample:\n  headrace provider disable openai")
def disable(name: Name, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Take a provider out of routing; `set NAME --enabled` brings it back."""
    set_(name, enabled=False, server=server, as_json=as_json)


@app.command("delete", epilog="\b\nExample:\n  headrace provider delete local")
def delete(name: Name, server: Server = DEFAULT_SERVER) -> None:
    """Remove a provider that nothing refers to; one that is on record can only be disabled."""
    from headrace.v1 import provider_service_pb2 as pb

    with connection(server) as channel:
        _stub(channel).DeleteProvider(pb.DeleteProviderRequest(provider=name))
    typer.echo(f"{name} is gone")


@app.command("reset", epilog="\b\nExample:\n  headrace provider reset openai")
def reset(name: Name, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Close the circuit breaker of a provider by hand."""
    from headrace.v1 import provider_service_pb2 as pb

    with connection(server) as channel:
        provider = _stub(channel).ResetCircuit(pb.ResetCircuitRequest(provider=name)).provider
    if as_json:
        echo_json(provider)
    else:
        typer.echo(f"{name}: circuit {word(pb.CircuitState, provider.health.circuit_state)}")


@app.command("check", epilog="\b\nExample:\n  headrace provider check claude")
def check(
    name: Name,
    model: Annotated[str, typer.Option(help="Empty: the provider's default model.")] = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Call the provider now, and say whether it answers. Exit code 1 where it does not."""
    from headrace.v1 import error_pb2
    from headrace.v1 import provider_service_pb2 as pb

    with connection(server) as channel:
        answer = _stub(channel).CheckProvider(pb.CheckProviderRequest(provider=name, model=model))
    if as_json:
        echo_json(answer)
    elif answer.ok:
        typer.echo(f"{name} answers as {answer.model} after {seconds(answer.latency)}")
    if not answer.ok:
        typer.echo(f"headrace: {word(error_pb2.ErrorCode, answer.error.code).upper()}: {answer.error.message}", err=True)
        raise typer.Exit(1)


def _stub(channel: Any) -> Any:
    from headrace.v1 import provider_service_pb2_grpc

    return provider_service_pb2_grpc.ProviderServiceStub(channel)


def _api_key(variable: str | None, ask: bool) -> str | None:
    if variable is not None:
        if not os.environ.get(variable):
            raise typer.BadParameter(f"the environment variable {variable} is not set")
        return os.environ[variable]
    if ask:
        if not sys.stdin.isatty():
            raise typer.BadParameter("--ask-api-key needs a terminal; use --api-key-env")
        return str(typer.prompt("API key", hide_input=True))
    return None


def _config_json(current: str, api: str | None, zone: str | None) -> str:
    import json

    changes = {name: value for name, value in (("api", api), ("zone", zone)) if value is not None}
    return json.dumps(json.loads(current or "{}") | changes) if changes else current


def _show(provider: "provider_service_pb2.Provider", as_json: bool) -> None:
    from headrace.v1 import provider_service_pb2 as pb

    if as_json:
        echo_json(provider)
        return
    state = "enabled" if provider.enabled else "disabled"
    key = "with a key" if provider.has_api_key else "without a key"
    typer.echo(f"{provider.provider}: {word(pb.Dialect, provider.dialect)} at {provider.api_url}, {provider.default_model}, {state}, {key}")


def _describe(provider: "provider_service_pb2.Provider") -> None:
    from headrace.v1 import provider_service_pb2 as pb

    circuit, errors, latency = _health(provider.health)
    limits = {
        "requests a minute": provider.rate_limit_rpm,
        "tokens a minute": provider.rate_limit_tpm,
        "requests a day": provider.rate_limit_rpd,
    }
    again = f", a probe at {clock(provider.health.circuit_retry_time)} UTC" if provider.health.HasField("circuit_retry_time") else ""
    for name, value in (
        ("provider", provider.provider),
        ("dialect", word(pb.Dialect, provider.dialect)),
        ("enabled", "yes" if provider.enabled else "no"),
        ("priority", str(provider.priority)),
        ("key", _key(provider)),
        ("model", provider.default_model),
        ("url", provider.api_url),
        ("from", word(pb.ProviderSource, provider.source)),
        ("limits", ", ".join(f"{limit} {what}" for what, limit in limits.items() if limit)),
        ("fallbacks", ", ".join(provider.fallback_providers)),
        ("settings", f"max_retries {provider.max_retries}, timeout_ms {provider.timeout_ms}, {provider.config_json}"),
        ("circuit", circuit + again),
        ("last minute", f"{provider.health.calls} calls, errors {errors}, latency {latency}"),
    ):
        if value:
            typer.echo(f"{name:<12} {value}")


def _key(provider: "provider_service_pb2.Provider") -> str:
    return (f"…{provider.api_key_last_four}" if provider.api_key_last_four else "yes") if provider.has_api_key else "none"


def _health(health: "provider_service_pb2.ProviderHealth") -> tuple[str, str, str]:
    """Circuit, error rate and latency."""
    from headrace.v1 import provider_service_pb2 as pb

    errors = f"{health.error_rate:.0%}" if health.HasField("error_rate") else "-"
    return word(pb.CircuitState, health.circuit_state), errors, seconds(health.latency) if health.HasField("latency") else "-"
