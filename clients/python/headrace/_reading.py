"""What a reader knows of one generation, whichever connection its events come over. No I/O here."""

from headrace.answer import Answer
from headrace.errors import ConnectionLost, HeadraceError, connection_lost, from_event
from headrace.v1.event_pb2 import GenerationEvent
from headrace.v1.generation_service_pb2 import CancelCommand, ResumeCommand, StreamGenerateRequest
from headrace.v1.request_pb2 import (
    DISCONNECT_POLICY_CANCEL,
    DISCONNECT_POLICY_DRAIN,
    DISCONNECT_POLICY_KEEP,
    DISCONNECT_POLICY_UNSPECIFIED,
    GenerateRequest,
)
from headrace.v1.result_pb2 import GenerationResult, ProviderError


class Reading:
    """One generation as it is read: every chunk once, in order, over as many connections as it takes.

    A `request` that says nothing of `on_disconnect` gets KEEP here: it is to outlive a lost connection, though not its reader.
    """

    def __init__(self, request_id: str, *, request: GenerateRequest | None = None, next_index: int = 0) -> None:
        self.request_id = request_id
        self.result: GenerationResult | None = None
        """Once it has completed."""
        self.error: HeadraceError | None = None
        """Once it has failed."""
        self.refusal: HeadraceError | None = None
        """Why the last command was refused, where it may be sent again."""
        self.runs_on = request is None or request.on_disconnect in (DISCONNECT_POLICY_DRAIN, DISCONNECT_POLICY_KEEP)
        """Whether it goes on when its reader leaves: it was asked for like that, or begun by somebody else."""
        if request is not None and request.on_disconnect == DISCONNECT_POLICY_UNSPECIFIED:
            request.on_disconnect = DISCONNECT_POLICY_KEEP
        self._request = request
        self.is_known = request is None
        """Whether the service is known to have it."""
        self._first_index = next_index
        self._texts: list[str] = []
        self._told: set[bytes] = set()

    @property
    def is_over(self) -> bool:
        """Whether its last event has come."""
        return self.result is not None or self.error is not None

    @property
    def next_index(self) -> int:
        """Index of the next chunk."""
        return self._first_index + len(self._texts)

    @property
    def text(self) -> str:
        """The text so far, without what was taken back."""
        return "".join(self._texts)

    def answer(self) -> Answer:
        """The whole answer. Raises what it failed with."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return Answer(self.request_id, self.result)

    # ------------------------------------------------------------ what is sent

    def command(self) -> StreamGenerateRequest:
        """What makes the service send the next events: on the first connection, and on every further one.

        Until something has come of it, the request itself is sent again: its id finds what the service may have begun.
        """
        self.refusal = None
        if self._request is not None and not self.is_known:
            return StreamGenerateRequest(generate=self._request)
        return StreamGenerateRequest(resume=ResumeCommand(request_id=self.request_id, next_index=self.next_index))

    def cancel_command(self) -> StreamGenerateRequest:
        """What ends it."""
        return StreamGenerateRequest(cancel=CancelCommand(request_id=self.request_id))

    def lost(self, error: HeadraceError | None) -> HeadraceError:
        """Why the events ended before the generation did, where another command may bring more. Raises what is final.

        `error` is that of the RPC; None: it ended as if all were well.
        """
        if self.refusal is not None:
            return self.refusal
        error = error or connection_lost(self.request_id)
        if isinstance(error, ConnectionLost) and not self.survives:
            raise error
        return error

    @property
    def survives(self) -> bool:
        """Whether the generation goes on when the connection is lost."""
        return self._request is None or self._request.on_disconnect != DISCONNECT_POLICY_CANCEL

    # ------------------------------------------------------------ what comes

    def take(self, event: GenerationEvent) -> bool:
        """Take an event in; whether it is news. After a lost connection the service tells some of them again."""
        kind = event.WhichOneof("event")
        if kind == "failed":
            return self._fail(from_event(event.failed))
        self.is_known = True
        if kind == "chunk":
            return self._add(event)
        if kind == "completed":
            self.result = event.completed
            return True
        seen = event.SerializeToString(deterministic=True)
        if seen in self._told:
            return False
        self._told.add(seen)
        if kind == "discontinuity":
            kept = max(0, event.discontinuity.discard_from_index - self._first_index)
            self._texts[kept:] = [""] * len(self._texts[kept:])
        return True

    def _add(self, event: GenerationEvent) -> bool:
        chunk = event.chunk
        if chunk.index > self.next_index:
            told = f"chunk {chunk.index} came where {self.next_index} was due"
            raise HeadraceError(ProviderError(request_id=self.request_id, message=told))
        if chunk.index < self.next_index:
            return False
        self._texts.append(chunk.text)
        return True

    def _fail(self, error: HeadraceError) -> bool:
        if error.is_safe_to_repeat:
            self.refusal = error
            return False
        self.error = error
        return True
