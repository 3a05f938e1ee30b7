"""What a dialect is: a pure encoder, a pure decoder, and its error and finish tables as data. Each stands in one file of its own.

A dialect does no I/O. It raises domain errors only, whatever bytes it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Fault, Violation
from headrace_server.domain.events import Delta
from headrace_server.domain.limits import LimitType
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A POST as a dialect wants it sent. Header names are lower case; the key is in a header, never in the URL."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """An answer with an error status, or an answer whose body is an error: what a classifier looks at."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """At most 1 MiB of it."""
    now: int = 0
    """Wall clock, milliseconds since the epoch, for delays that are named as dates."""


@dataclass(frozen=True, slots=True)
class LimitHeader:
    """A header that tells how much is left of a limit. Of several for the same limit the smallest count holds."""

    name: str
    limit_type: LimitType
    reset: str = ""
    """The header that tells when a limit of requests is renewed: some servers count them by the day, and only this shows it."""


class Decoder(Protocol):
    """Reads one answer. Stateful, but pure: bytes in, deltas out.

    Each delta that is returned has been added to `answer`. An event that carries an error raises ProviderFault, and so does one that
    is not valid (subreason MALFORMED_EVENT); unknown events and fields are passed over. `answer` keeps what came before.
    """

    answer: Answer

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        """One server-sent event: its `event` field (empty where it has none) and its joined `data`."""
        ...

    def whole(self, body: bytes) -> Sequence[Delta]:
        """The body of an answer that came as a whole, with status 200. It is complete after that; `finish` still follows."""
        ...

    def finish(self) -> None:
        """The body has ended properly at the transport level.

        Sets `answer.finish_reason` and the final usage. Raises ProviderFault where the terminal evidence of the dialect is missing
        (network_error, STREAM_TRUNCATED), where the answer is empty without a reason (server_error, EMPTY), or where its
        finish reason means an error.
        """
        ...


class Dialect(Protocol):
    """One way of speaking to providers."""

    default_api_url: str
    """The public base URL, as the vendor's own SDK calls it."""

    @property
    def limit_headers(self) -> Sequence[LimitHeader]:
        """The headers by which its answers tell what is left of its limits."""
        ...

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request this dialect cannot express, each with the path of its field; empty: everything can be sent."""
        ...

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The request in the provider's words. Only called when `check` finds nothing."""
        ...

    def decoder(self, provider: Provider) -> Decoder:
        """A decoder for one answer."""
        ...

    def classify(self, failure: HttpFailure) -> Fault:
        """What an error answer means: by its body first, then its status, then words in its message."""
        ...
