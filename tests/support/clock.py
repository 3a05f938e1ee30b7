"""An event loop whose clock a test moves on: what waits is due at once, while sockets stay real."""

import asyncio


class ClockLoop(asyncio.SelectorEventLoop):
    """Its time is the real one plus what `advance` added."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0
        """Seconds that the clock is ahead of the real one."""

    def time(self) -> float:
        return super().time() + self.offset

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once. To be called from within the loop."""
        assert seconds >= 0, "time does not run backwards"
        self.offset += seconds
