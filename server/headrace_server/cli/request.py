"""`headrace request`: the record of a running service."""

from typing import Annotated, Any

import typer

from headrace_server.cli.client import DEFAULT_SERVER, AsJson, Server, clock, connection, echo_json, echo_table, number, seconds, word

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show, watch and cancel the requests of a running service.")

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")]


@app.command("list", epilog="\b\nExample:\n  headrace request list --state failed --provider claude --limit 20")
def list_(
    state: Annotated[str, typer.Option(help="Only in this state, such as failed.")] = "",
    provider: Annotated[str, typer.Option(help="Only of this provider.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    conversation: Annotated[str, typer.Option(help="Only of this conversation.")] = "",
    tag: Annotated[str, typer.Option(help="Only with this tag.")] = "",
    code: Annotated[str, typer.Option(help="Only failed with this code, such as timeout.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most requests to list.")] = 20,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    from headrace.v1 import error_pb2, lifecycle_pb2
    from headrace.v1 import request_service_pb2 as pb

    asked = pb.ListRequestsRequest(provider=provider, model=model, user_id=user, conversation_id=conversation, tag=tag)
    if state:
        asked.state = lifecycle_pb2.RequestState.ValueType(number(lifecycle_pb2.RequestState, state))
    if code:
        asked.error_code = error_pb2.ErrorCode.ValueType(number(error_pb2.ErrorCode, code))
    found: list[pb.RequestRecord] = []
    with connection(server) as channel:
        while len(found) < limit:
            asked.page_size = min(1000, limit - len(found))
            page = _stub(channel).ListRequests(asked)
            found += page.requests
            asked.page_token = page.next_page_token
            if not asked.page_token:
                break
    if as_json:
        for record in found:
            echo_json(record)
        return
    echo_table(
        ("REQUEST", "CREATED (UTC)", "STATE", "PROVIDER", "MODEL", "DURATION", "TOKENS", "CODE"),
        [
            (
                r.request_id,
                clock(r.created_at),
                word(lifecycle_pb2.RequestState, r.state),
                r.provider,
                r.model,
                seconds(r.duration) if r.HasField("duration") else "",
                str(r.response_data.usage.total_tokens) if r.HasField("response_data") else "",
                word(error_pb2.ErrorCode, r.error_code) if r.error_code else "",
            )
            for r in found
        ],
    )


@app.command("show", epilog="\b\nExample:\n  headrace request show 01890a5d-ac96-774b-bcce-b302099a8057")
def show(request_id: Id, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show one request: its states, its attempts, its answer."""
    from headrace.v1 import request_service_pb2 as pb

    with connection(server) as channel:
        record = _stub(channel).GetRequest(pb.GetRequestRequest(request_id=request_id)).request
    if as_json:
        echo_json(record)
    else:
        _describe(record)


@app.command("watch", epilog="\b\nExample:\n  headrace request watch 01890a5d-ac96-774b-bcce-b302099a8057")
def watch(request_id: Id, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show the transitions of a request, those that were and those to come, until it has ended."""
    from headrace.v1 import request_service_pb2 as pb
    from headrace_server.cli.events import describe

    with connection(server) as channel:
        call = _stub(channel).WatchRequest(pb.WatchRequestRequest(request_id=request_id))
        try:
            for response in call:
                if as_json:
                    echo_json(response.transition)
                else:
                    typer.echo(f"{clock(response.transition.time)}  {describe(response.transition)}")
        except KeyboardInterrupt:
            call.cancel()
            raise typer.Exit(130) from None


@app.command("cancel", epilog="\b\nExample:\n  headrace request cancel 01890a5d-ac96-774b-bcce-b302099a8057")
def cancel(request_id: Id, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Cancel a request, and say how it ended; one that has ended stays as it is."""
    from headrace.v1 import lifecycle_pb2
    from headrace.v1 import request_service_pb2 as pb

    with connection(server) as channel:
        record = _stub(channel).CancelRequest(pb.CancelRequestRequest(request_id=request_id)).request
    if as_json:
        echo_json(record)
    else:
        typer.echo(f"{record.request_id}: {word(lifecycle_pb2.RequestState, record.state)}")


def _stub(channel: Any) -> Any:
    from headrace.v1 import request_service_pb2_grpc

    return request_service_pb2_grpc.RequestServiceStub(channel)


def _describe(record: Any) -> None:
    from headrace.v1 import error_pb2, lifecycle_pb2
    from headrace_server.cli.events import describe, summary

    typer.echo(f"{record.request_id}  {word(lifecycle_pb2.RequestState, record.state)}  {record.provider}/{record.model}")
    typer.echo(f"created {clock(record.created_at)} UTC" + (f", took {seconds(record.duration)}" if record.HasField("duration") else ""))
    for name, value in (
        ("conversation", record.conversation_id),
        ("user", record.user_id),
        ("tags", ", ".join(record.tags)),
        ("trace", record.trace_id),
    ):
        if value:
            typer.echo(f"{name} {value}")
    if record.error_code:
        typer.echo(f"failed: {word(error_pb2.ErrorCode, record.error_code).upper()}: {record.error_message}")
    typer.echo("transitions:")
    for transition in record.transitions:
        typer.echo(f"  {clock(transition.time)}  {describe(transition)}")
    if record.HasField("response_data"):
        typer.echo(f"answer: {summary(record.response_data)}")
        typer.echo("".join(part.text for part in record.response_data.content))
