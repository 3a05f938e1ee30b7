"""The state machine as a picture, drawn from its table."""

from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.machine import TRANSITIONS


def table() -> str:
    """One line a transition: from, event, to."""
    rows = [(state.value, event.value, target.value) for state, events in TRANSITIONS.items() for event, target in events.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {event:<{widths[1]}}  → {b}" for a, event, b in rows)


def mermaid() -> str:
    """A Mermaid `stateDiagram-v2`; events that lead the same way share an arrow."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE}"]
    for state, events in TRANSITIONS.items():
        targets = dict.fromkeys(events.values())
        lines += (f"    {state} --> {target}: {', '.join(e for e, t in events.items() if t is target)}" for target in targets)
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in TRANSITIONS if state in TERMINAL)])
