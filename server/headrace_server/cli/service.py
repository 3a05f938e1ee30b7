"""The commands that run something on this machine: the service, its database, the fake provider, the demo, the diagram."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace_server.config import Settings

database = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the database.")

Config = Annotated[Path | None, typer.Option("--config", help="Configuration file (TOML); also HEADRACE_CONFIG.")]
Database = Annotated[str | None, typer.Option("--database", help="sqlite:///PATH; default: a file in the user's data directory.")]


def serve(
    listen: Annotated[str | None, typer.Option(help="Address, HOST:PORT; port 0 takes a free one. Default: 127.0.0.1:50051.")] = None,
    database: Database = None,
    config: Config = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Allow a listener that other machines reach unprotected.")] = None,
    durability: Annotated[str | None, typer.Option(help="strict, normal or relaxed.")] = None,
    reflection: Annotated[bool | None, typer.Option("--reflection/--no-reflection", help="Describe the service to grpcurl.")] = None,
    transport: Annotated[str | None, typer.Option(help="aiohttp or httpx.")] = None,
    drain_timeout: Annotated[float | None, typer.Option(help="Seconds that streams may go on after SIGTERM.")] = None,
    otlp_endpoint: Annotated[str | None, typer.Option(help="Where spans and metrics go, by OTLP over gRPC.")] = None,
    prometheus_listen: Annotated[str | None, typer.Option(help="Address that serves metrics to Prometheus.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json/--log-text", help="Default: JSON unless stderr is a terminal.")] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Each setting has a place in the file and a variable HEADRACE_<NAME> too: a flag beats a variable, which beats the file.
    """
    settings = _settings({name: value for name, value in locals().items() if name != "config"}, config)
    from headrace_server import program

    def ready(address: str) -> None:
        typer.echo(f"headrace listening on {address}")
        sys.stdout.flush()

    with _failing(program.StartError):
        program.serve(settings, ready)


@database.command("migrate", epilog="\b\nExample:\n  headrace db migrate --database sqlite:///headrace.db")
def migrate(database: Database = None, config: Config = None) -> None:
    """Bring the database up to date; `headrace serve` does so by itself."""
    settings = _settings({"database": database}, config)
    from headrace_server import program

    with _failing(program.StartError):
        applied = program.migrate(settings)
    typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@database.command("check", epilog="\b\nExample:\n  headrace db check --database sqlite:///headrace.db")
def check(database: Database = None, config: Config = None) -> None:
    """Look for everything that must not be: damage, rows without their request, limits that do not add up. Also while serving.

    One line for each finding, and exit code 1 if there are any. Nothing is changed.
    """
    settings = _settings({"database": database}, config)
    from headrace_server import program

    with _failing(program.StartError):
        findings = program.check(settings)
        typer.echo("\n".join(findings) or f"database ok: {program.count_requests(settings):,} requests")
    raise typer.Exit(1 if findings else 0)


@database.command("backup", epilog="\b\nExample:\n  headrace db backup headrace-monday.db --database sqlite:///headrace.db")
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; there must be nothing yet.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Copy the database as it is at this moment, also while it is served.

    Stored API keys are in the copy as they are in the database: encrypted by the key ring beside it, which is kept apart.
    """
    settings = _settings({"database": database}, config)
    from headrace_server import program

    with _failing(program.StartError):
        program.backup(settings, file)
    typer.echo(f"copied to {file}, {file.stat().st_size / 1_000_000:,.1f} MB")


@database.command("prune", epilog="\b\nExample:\n  headrace db prune --dry-run --config headrace.toml")
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many rows there are.")] = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Delete what has been kept for longer than the settings retention_… say; `headrace serve` does so by itself, every minute."""
    settings = _settings({"database": database}, config)
    from headrace_server import program

    with _failing(program.StartError):
        gone = program.prune(settings, dry_run=dry_run)
    what = f"{gone.requests:,} requests, {gone.metrics:,} rows of metrics, {gone.chunks:,} rows of kept chunks"
    typer.echo(f"{'would be deleted' if dry_run else 'deleted'}: {what}")


def states(mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid state diagram.")] = False) -> None:
    """Print the states of a request and what leads from one to the next."""
    from headrace_server.domain import diagram

    typer.echo(diagram.mermaid() if mermaid else diagram.table())


def fake_provider(
    listen: Annotated[str, typer.Option(help="Address, HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:0",
    script: Annotated[str | None, typer.Option(help="What is answered, and how it fails: a ready script by its name, or a file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the ready scripts and end.")] = False,
    write_config: Annotated[Path | None, typer.Option(help="Write the configuration for `headrace serve` to this file.")] = None,
) -> None:
    """Run a provider that echoes the prompt in every dialect, and fails as its script says, until SIGTERM or Ctrl-C.

    A script with named providers comes with the configuration of a service in front of them, and the request that shows what it is about.
    """
    from headrace_server.config import split_address
    from headrace_server.fake_provider import FakeProvider, Script, find_script, load_ready, load_script, ready_scripts, recipe

    if list_:
        for name in ready_scripts():
            typer.echo(f"{name:5} {load_ready(name).about}")
        return
    try:
        host, port = split_address(listen)
        played = load_script(find_script(script)) if script else []
        if write_config is not None and not isinstance(played, Script):
            raise ValueError("--write-config needs a script with named providers")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None

    async def run() -> None:
        async with FakeProvider(played, host=host, port=port) as provider:
            typer.echo(f"fake provider listening on {provider.url}")
            if isinstance(played, Script):
                typer.echo(recipe.told(played, provider.api_urls(), write_config))
            sys.stdout.flush()
            await _told_to_stop()

    with _failing(OSError):
        asyncio.run(run())


def run_demo(
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = "What does a river do? Answer in two sentences.",
    fake: Annotated[bool, typer.Option("--fake", help="Use the fake provider instead of a real model.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Keep serving until Ctrl-C.")] = False,
) -> None:
    """Start a model and the service on this machine, stream one answer, show its record, and end."""
    from headrace_server import demo

    raise typer.Exit(demo.main(prompt, fake=fake, serve=serve))


def _settings(flags: dict[str, Any], config: Path | None) -> "Settings":
    from headrace_server.config import ConfigurationError, load

    try:
        return load(flags, config=config)
    except ConfigurationError as error:
        for line in error.lines:
            typer.echo(f"headrace: {line}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _failing(error: type[Exception]) -> Iterator[None]:
    """The error ends the command with its text and exit code 1."""
    try:
        yield
    except error as why:
        typer.echo(f"headrace: {why}", err=True)
        raise typer.Exit(1) from None


async def _told_to_stop() -> None:
    import signal

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(wanted, stop.set)
    await stop.wait()
