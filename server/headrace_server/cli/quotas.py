"""`headrace provider quotas`: what is used and left of the limits."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace_server.cli.client import DEFAULT_SERVER, AsJson, Server, clock, connection, echo_json, echo_table, word

if TYPE_CHECKING:
    from headrace.v1 import provider_service_pb2


def quotas(
    name: Annotated[str, typer.Argument(help="Only of this provider.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show them again whenever one changes, until Ctrl-C.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Show what is used and left of the limits, per provider and model; with --json one quota a line."""
    from headrace.v1 import provider_service_pb2_grpc

    with connection(server) as channel:
        stub = provider_service_pb2_grpc.ProviderServiceStub(channel)
        try:
            for found in _watched(stub, name, model) if watch else [_listed(stub, name, model)]:
                if as_json:
                    for quota in found:
                        echo_json(quota)
                else:
                    echo_quotas(found)
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _listed(stub: Any, name: str, model: str) -> "list[provider_service_pb2.Quota]":
    from headrace.v1 import provider_service_pb2 as pb

    asked, found = pb.ListQuotasRequest(provider=name, model=model, page_size=1000), []
    while True:
        page = stub.ListQuotas(asked)
        found += page.quotas
        if not page.next_page_token:
            return found
        asked.page_token = page.next_page_token


def _watched(stub: Any, name: str, model: str) -> "Iterator[Iterable[provider_service_pb2.Quota]]":
    from headrace.v1 import provider_service_pb2 as pb

    for response in stub.WatchQuotas(pb.WatchQuotasRequest(provider=name, model=model)):
        yield response.quotas


def echo_quotas(quotas: "Iterable[provider_service_pb2.Quota]") -> None:
    """Quotas as a table."""
    from headrace.v1 import provider_service_pb2 as pb

    echo_table(
        ("PROVIDER", "MODEL", "LIMIT OF", "LIMIT", "USED", "RESERVED", "LEFT", "RESET (UTC)"),
        [
            (
                q.provider,
                q.model,
                word(pb.LimitType, q.limit_type).replace("_", " "),
                str(q.limit),
                str(q.used),
                str(q.reserved),
                str(max(0, q.limit - q.used - q.reserved)),
                clock(q.reset_time),
            )
            for q in quotas
        ],
    )
