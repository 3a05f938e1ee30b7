"""The events of a generation, for a person: text to stdout as it comes, everything else to stderr."""

import time

import typer

from headrace.v1 import event_pb2, lifecycle_pb2, result_pb2
from headrace_server.cli.client import seconds, word


class EventPrinter:
    """Shows one generation. `states`: its transitions too, with the seconds since its start. `notes_to_stdout`: all to stdout."""

    def __init__(self, *, states: bool, notes_to_stdout: bool = False) -> None:
        self._states = states
        self._notes_to_stdout = notes_to_stdout
        self._began = time.monotonic()
        self._in_text = False

    def show(self, event: event_pb2.GenerationEvent) -> None:
        """Show one event; a failure is left to the RPC's status, which tells it in full."""
        match event.WhichOneof("event"):
            case "transition" if self._states:
                self._note(f"{time.monotonic() - self._began:8.3f} s  {describe(event.transition)}")
            case "chunk":
                self._text(event.chunk.text or event.chunk.refusal)
            case "discontinuity":
                again = event.discontinuity
                self._note(f"what came before is void: {again.provider}/{again.model} starts again ({again.reason})")
            case "completed":
                for part in event.completed.content:
                    if part.HasField("tool_call"):
                        self._note(f"calls {part.tool_call.name}({part.tool_call.arguments_json})")
                self._note(summary(event.completed))
            case "failed" if self._in_text:
                self._note("the answer broke off")

    def _text(self, text: str) -> None:
        if text:
            typer.echo(text, nl=False)
            self._in_text = not text.endswith("\n")

    def _note(self, line: str) -> None:
        if self._in_text:
            typer.echo()
            self._in_text = False
        typer.echo(line, err=not self._notes_to_stdout)


def describe(transition: lifecycle_pb2.StateTransition) -> str:
    """A transition as one line of text."""
    step = f"{word(lifecycle_pb2.RequestState, transition.from_state)} → {word(lifecycle_pb2.RequestState, transition.to_state)}"
    where = f" {transition.provider}/{transition.model}" if transition.provider else ""
    wait = f", waiting {seconds(transition.wait)}" if transition.HasField("wait") else ""
    why = f" ({transition.reason})" if transition.reason else ""
    return f"{step} [{word(lifecycle_pb2.LifecycleEvent, transition.event)}]{where}{wait}{why}"


def summary(result: result_pb2.GenerationResult) -> str:
    """How a generation went, as one line of text."""
    usage = result.usage
    told = [
        f"{result.provider}/{result.model}",
        f"{usage.input_tokens} + {usage.output_tokens} tokens",
        f"first token after {seconds(result.first_token_latency)}" if result.HasField("first_token_latency") else "",
        f"{seconds(result.duration)} in all",
        f"{len(result.attempts)} attempts" if len(result.attempts) > 1 else "",
        f"${result.cost / 1e6:.6f}" if result.HasField("cost") else "",
        f"ended by {word(result_pb2.FinishReason, result.finish_reason)}",
    ]
    return ", ".join(filter(None, told))
