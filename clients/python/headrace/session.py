"""Many generations over one stream, for blocking callers."""

import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from headrace._reading import Reading
from headrace.answer import Answer
from headrace.errors import HeadraceError, TimedOut, from_rpc
from headrace.request import Prompt, RequestFields, build_request
from headrace.retry import Deadline, Tries
from headrace.stream import Stream
from headrace.v1.event_pb2 import GenerationEvent
from headrace.v1.generation_service_pb2 import StreamGenerateRequest
from headrace.v1.result_pb2 import ProviderError

if TYPE_CHECKING:
    from headrace.client import Client

Commands = queue.SimpleQueue[StreamGenerateRequest | None]
"""What goes up a stream; None: no more."""

LAST_WORDS = 5.0
"""Most seconds that the service gets to tell the ends of what is cancelled when a session closes."""


class Session:
    """One open stream with many generations on it, which costs the service and the network less than a stream for each.

        with client.session() as session:
            streams = [session.stream(question) for question in questions]
            answers = [stream.answer() for stream in streams]

    A thread of the session reads for all of them; what a slow reader has not taken yet waits in memory. When the connection is lost, the
    session makes a new one and resumes every generation on it. Safe to use from several threads, each with streams of its own.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._lock = threading.Lock()
        self._open: dict[str, SharedStream] = {}
        self._commands: Commands | None = None
        """Of the stream that is open now; None: there is none."""
        self._call: Any = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def stream(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Stream:
        """Start a generation. The request goes out at once; errors come out of the stream. ValueError: its id runs here already."""
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        source = SharedStream(self, reading, Deadline(timeout))
        with self._lock:
            if self._closing.is_set():
                raise ValueError("the session is closed")
            if reading.request_id in self._open:
                raise ValueError(f"{reading.request_id} runs in this session already")
            self._open[reading.request_id] = source
            if self._commands is not None:
                self._commands.put(reading.command())
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace session", daemon=True)
                self._thread.start()
        return Stream(reading, source)

    def generate(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Answer:
        """The whole answer. Raises HeadraceError."""
        return self.stream(prompt, timeout=timeout, **fields).answer()

    def close(self) -> None:
        """Cancel what is not over, wait for its end, and close the stream. What was asked for with DRAIN or KEEP runs on."""
        with self._lock:
            self._closing.set()
            if self._commands is not None:
                self._take_leave(self._commands)
            thread = self._thread
            patience = 0.0 if self._may_hang_up() else LAST_WORDS
        if thread is not None:
            thread.join(patience)
            if thread.is_alive() and self._call is not None:
                self._call.cancel()
                thread.join(LAST_WORDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def cancel(self, reading: Reading) -> None:
        """End one of its generations. Does not wait."""
        with self._lock:
            if reading.request_id in self._open:
                self._cancel(reading)

    def _take_leave(self, commands: Commands) -> None:
        """The last commands of a session, behind those that began its generations."""
        for source in self._open.values():
            if not source.reading.runs_on:
                commands.put(source.reading.cancel_command())
        commands.put(None)

    def _may_hang_up(self) -> bool:
        """Whether nothing has to be heard any more of what is left on the stream of a session that closes: it runs on by itself."""
        left = [source.reading for source in self._open.values()]
        return bool(left) and self._commands is not None and all(one.runs_on and one.is_known for one in left)

    def _cancel(self, reading: Reading) -> None:
        if self._commands is not None:
            self._commands.put(reading.cancel_command())  # behind the command that began it
        else:
            self._client.cancel_soon(reading.request_id)

    # ------------------------------------------------------------ the session's thread

    def _run(self) -> None:
        """Keep a stream open while there is something to read, over as many connections as it takes."""
        tries = Tries(self._client.retry, Deadline(None))
        while True:
            failure = self._read_one_stream(tries)
            with self._lock:
                delay = self._delay(failure, tries)
                if not self._open:
                    self._thread = None
                    return
            self._closing.wait(delay)

    def _read_one_stream(self, tries: Tries) -> grpc.RpcError | None:
        """Until it ends; with what error."""
        commands: Commands = queue.SimpleQueue()
        with self._lock:
            for source in self._open.values():
                commands.put(source.reading.command())
            if self._closing.is_set():
                self._take_leave(commands)
            self._commands = commands
            self._call = self._client.generation.StreamGenerate(iter(commands.get, None), metadata=self._client.metadata)
        try:
            for response in self._call:
                for event in response.events:
                    if self._pass_on(event):
                        tries.progress()
                if self._closing.is_set() and self._may_hang_up():
                    break
        except grpc.RpcError as error:
            was_closed = self._closing.is_set() and error.code() is grpc.StatusCode.CANCELLED
            return None if was_closed else error
        finally:
            self._call.cancel()
            with self._lock:
                self._commands = None
            commands.put(None)  # lets go of the thread that sends
        return None

    def _pass_on(self, event: GenerationEvent) -> bool:
        """Whether it is news."""
        if (source := self._open.get(event.request_id)) is None:
            return False
        is_news = source.put(event)
        if source.reading.is_over:
            with self._lock:
                del self._open[event.request_id]
        return is_news

    def _delay(self, failure: grpc.RpcError | None, tries: Tries) -> float:
        """Seconds until the next stream. Generations that cannot go on over it fail now."""
        delay = 0.0
        for request_id, source in list(self._open.items()):
            error = None if failure is None else from_rpc(failure, request_id)
            try:
                error = source.reading.lost(error)
                if self._closing.is_set():
                    if not source.reading.runs_on:
                        self._client.cancel_soon(request_id)  # the last commands may not have arrived
                    raise error
                delay = delay or tries.delay(error)
            except HeadraceError as final:
                source.fail(final)
                del self._open[request_id]
        return delay


class SharedStream:
    """The source of one of a session's generations."""

    def __init__(self, session: Session, reading: Reading, deadline: Deadline) -> None:
        self.reading = reading
        self._session = session
        self._deadline = deadline
        self._events: queue.SimpleQueue[GenerationEvent | HeadraceError] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._is_closed = False
        self._has_ended = False

    def put(self, event: GenerationEvent) -> bool:
        """An event has come; whether it is news. Called by the session's thread."""
        is_news = False
        try:
            if is_news := self.reading.take(event):
                self._events.put(event)
        except HeadraceError as error:
            self.fail(error)
        refusal = self.reading.refusal
        if refusal is not None and refusal.subreason != "SHUTTING_DOWN":
            self.fail(refusal)  # the stream stays open, and so there is no further one to send it again on
        elif self.reading.is_over:
            self._is_over.set()
        return is_news

    def fail(self, error: HeadraceError) -> None:
        """No more will come."""
        self.reading.error = error
        self._events.put(error)
        self._is_over.set()

    def next_event(self) -> GenerationEvent | None:
        """See Source."""
        if self._is_closed or self._has_ended:
            return None
        try:
            event = self._events.get(timeout=self._deadline.patience)
        except queue.Empty:
            self.close()
            raise TimedOut(ProviderError(request_id=self.reading.request_id, message="the service did not keep the deadline")) from None
        if isinstance(event, HeadraceError):
            self._has_ended = True
            raise event
        self._has_ended = event.HasField("completed") or event.HasField("failed")
        return event

    def cancel(self) -> None:
        """See Source."""
        self._session.cancel(self.reading)

    def close(self) -> None:
        """See Source."""
        if not self._is_closed:
            self._is_closed = True
            if not self.reading.is_over and not self.reading.runs_on:
                self._session.cancel(self.reading)

    def settle(self) -> None:
        """See Source."""
        if not self.reading.runs_on:
            self._is_over.wait(LAST_WORDS)
