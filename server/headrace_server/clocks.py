"""The clocks of a stream: first token, silence, and progress. Pure; times are seconds of the event loop's clock."""

from dataclasses import dataclass

from headrace_server.domain.errors import ErrorCode, Fault, ReplaySafety, Subreason


@dataclass(slots=True, kw_only=True)
class Clocks:
    """When an attempt has taken too long. Bytes reset `idle`, content resets `progress`."""

    first_token: float
    idle: float
    progress: float
    started: float
    last_bytes: float | None = None
    last_content: float | None = None
    stopped_at: float | None = None
    """Since when nothing is read, because the readers take nothing."""

    def saw(self, now: float, *, content: bool) -> None:
        """Bytes came, with or without content in them."""
        self.last_bytes = now
        if content:
            self.last_content = now

    def stop(self, now: float) -> None:
        """Nothing is read any more: the silence that follows is ours, not the provider's."""
        self.stopped_at = now

    def go_on(self, now: float) -> None:
        """The provider is read again."""
        assert self.stopped_at is not None
        seconds, self.stopped_at = now - self.stopped_at, None
        self.started += seconds
        if self.last_bytes is not None:
            self.last_bytes += seconds
        if self.last_content is not None:
            self.last_content += seconds

    def look(self, now: float) -> float | None:
        """When to look at the clocks again; None where one has run out. Nothing that comes meanwhile makes one run out before that."""
        shortest = now + min(self.first_token, self.idle, self.progress)
        if self.stopped_at is not None:
            return shortest
        due, _ = self.next()
        return None if due <= now else min(due, shortest)

    def next(self) -> tuple[float, Subreason]:
        """The clock that runs out first: when, and its name."""
        clocks = [((self.started if self.last_content is None else self.last_content) + self.progress, Subreason.PROGRESS)]
        if self.last_bytes is not None:
            clocks.append((self.last_bytes + self.idle, Subreason.STREAM_IDLE))
        if self.last_content is None:
            clocks.append((self.started + self.first_token, Subreason.TTFT))
        return min(clocks)

    def fault(self, *, sent: bool) -> Fault:
        """What to say when the next clock has run out. Until the request is on its way it is the connection that does not come."""
        due, subreason = self.next()
        if not sent:
            return Fault(
                code=ErrorCode.NETWORK_ERROR,
                message=f"cannot connect to the provider: no connection within {due - self.started:g} s",
                retryable=True,
                replay_safety=ReplaySafety.NOT_SENT,
            )
        what = {
            Subreason.PROGRESS: f"no content for {self.progress:g} s",
            Subreason.STREAM_IDLE: f"no bytes for {self.idle:g} s",
            Subreason.TTFT: f"no first token within {self.first_token:g} s",
        }
        return Fault(
            code=ErrorCode.TIMEOUT,
            message=f"the provider sent {what[subreason]}",
            subreason=subreason,
            retryable=True,
            replay_safety=ReplaySafety.UNCERTAIN,
        )
