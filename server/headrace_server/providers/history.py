"""What a conversation may carry from earlier turns, and the words for what cannot go back. One rule for all dialects:

What an answer of a dialect holds goes back to that dialect. What another one made is refused where it can be told apart, and never left
out in silence; so a provider that cannot take over a conversation is passed over, and the caller hears which part was in the way. A
caller who wants it to take over leaves those parts out, or sends them as text.

Signatures bear no mark of their maker. Those of the dialect openai are JSON objects, or short ids of items; those of claude and gemini
are base64, and cannot be told from one another: such a provider itself refuses a signature that it did not make.
"""

from uuid import uuid4

MADE_ID = "call_headrace_"
"""How ids begin that were made here, for calls to which the provider gave none."""

INEXPRESSIBLE = "cannot be expressed in this provider's API"
FOREIGN = f"was made by another provider, and {INEXPRESSIBLE}"
REFUSAL = f"{INEXPRESSIBLE}: send it as text, or leave the refused turn out"
OWN_REASONING = "must be set: this provider takes back only the reasoning that it made itself"
CALL_ID = "must be set for this provider"
CALL_ARGUMENTS = "must be a JSON object for this provider"


def made_id() -> str:
    """An id for a call that came without one."""
    return MADE_ID + uuid4().hex


def is_openai_made(opaque: str) -> bool:
    """Whether a signature or encrypted reasoning has the form in which the dialect openai keeps what goes with it."""
    return opaque.startswith("{")
