"""The command `headrace`: what a person types. Exit codes: 0 done, 1 the work failed, 2 wrong usage.

Each command imports what it needs when it runs, so that help is there at once.
"""

from typing import Annotated

import typer

from headrace_server.cli import explain, generate, provider, quotas, request, service

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="\b\nExample:\n  headrace serve --database sqlite:///headrace.db",
)
app.command("serve", epilog="\b\nExample:\n  headrace serve --listen 127.0.0.1:0 --config headrace.toml")(service.serve)
app.command("generate", epilog='\b\nExample:\n  headrace generate "Why is the sky blue?" --provider claude --states')(generate.generate)
app.command("explain", epilog='\b\nExample:\n  headrace explain "Why is the sky blue?" --provider claude')(explain.explain)
provider.app.command("quotas", epilog="\b\nExample:\n  headrace provider quotas openai --watch")(quotas.quotas)
app.add_typer(provider.app, name="provider")
app.add_typer(request.app, name="request")
app.add_typer(service.database, name="db")
app.command("states", epilog="\b\nExample:\n  headrace states --mermaid")(service.states)
app.command("fake-provider", epilog="\b\nExample:\n  headrace fake-provider --script F02 --write-config headrace.toml")(
    service.fake_provider
)
app.command("demo", epilog='\b\nExample:\n  headrace demo "Name three rivers." --fake')(service.run_demo)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def headrace(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Headrace carries token streams from model providers to services, and keeps a record of every request."""


def main() -> None:
    """Run the command that the arguments name."""
    app(prog_name="headrace")
