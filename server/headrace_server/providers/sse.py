"""Server-sent events out of bytes, as they come. Pure.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html but for two things that providers make necessary: an event that
is ended by the end of the body instead of a blank line counts, and an event without data, or with
nothing but empty lines in it, does not.
"""

from headrace_server.providers.faults import too_large

MAX_EVENT = 1_024 * 1_024
"""Bytes that one event may have by default."""

_BOM = b"\xef\xbb\xbf"


class Scanner:
    """Give it the bytes of a body in pieces of any size; it gives back the events that are whole.

    Bytes are split before anything is decoded, so that no character is ever cut.
    """

    __slots__ = ("_after_cr", "_head", "_max_event", "_rest")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._head: bytes | None = b""  # what may become a byte order mark; None once that is settled
        self._after_cr = False  # the last piece ended in CR: an LF that follows belongs to it
        self._rest = bytearray()  # the event that is not whole yet; its line ends are LF

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """The events that are whole with this piece: name (empty where there is none) and data.

        Raises ProviderFault (EVENT_TOO_LARGE) for an event above the cap, whole or not.
        """
        if self._head is not None:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return []
            self._head = None
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if rest := self._rest:
            # Only what is new is searched, so that a long event in small pieces costs no more than a short one.
            searched = len(rest) - 1
            rest += data
            if rest.find(b"\n\n", searched) < 0:
                self._cap(len(rest))
                return []
            data = bytes(rest)
            rest.clear()
        blocks = data.split(b"\n\n")
        self._rest += blocks.pop()
        if len(data) > self._max_event:
            self._cap(max(map(len, blocks), default=0))
            if not blocks:
                self._cap(len(self._rest))
        return _events(blocks)

    def close(self) -> list[tuple[str, bytes]]:
        """The body has ended: the last event, if no blank line ended it."""
        block = bytes(self._rest) or self._head or b""
        self._cap(len(block))
        self._rest.clear()
        return _events([block])

    def _cap(self, size: int) -> None:
        if size > self._max_event:
            raise too_large("an event of the stream", self._max_event)


def _events(blocks: list[bytes]) -> list[tuple[str, bytes]]:
    events: list[tuple[str, bytes]] = []
    for block in blocks:
        # The two forms that nearly all events have are read without a loop over lines.
        head, _, tail = block.partition(b"\n")
        if not tail and head.startswith(b"data: "):
            name, data = "", head[6:]
        elif head.startswith(b"event: ") and tail.startswith(b"data: ") and b"\n" not in tail:
            name, data = head[7:].decode("utf-8", "replace"), tail[6:]
        else:
            name, data = _fields(block)
        if data.strip(b"\n"):
            events.append((name, data))
    return events


def _fields(block: bytes) -> tuple[str, bytes]:
    """Name and data of one event, line by line. Comments, ids and retry times mean nothing here."""
    name, data = "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    return name, b"\n".join(data)
