"""Taking keys out of texts that others wrote. Pure; used wherever foreign text is kept, shown or logged."""

import re

REDACTED = "[redacted]"

SHORTEST_SECRET = 4
"""A given secret shorter than this keeps nothing safe, and taking it out would make texts unreadable."""

_KEYS = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:sk|xai|pplx)-[A-Za-z0-9_*.-]{3,}             # OpenAI, Anthropic (sk-ant-…), xAI, Perplexity; also half masked
    | (?<![A-Za-z0-9])(?:gsk|hf)_[A-Za-z0-9]{8,}                      # Groq, Hugging Face
    | AIza[A-Za-z0-9_-]{8,}                                           # Google
    | (?P<scheme> \bBearer\s+ ) (?!token|auth)[A-Za-z0-9._~+/=*-]{6,}
    | (?P<query> [?&](?:api_?)?key= ) [^&\s"'<>]+
    | (?P<header> \b(?:x-)?(?:goog-)?api[-_]?key["']?\s*[:=]\s*["']? ) [^\s"',;}<>]+
    """,
    re.VERBOSE | re.IGNORECASE,
)

_SIGNS = ("sk-", "xai-", "pplx-", "gsk_", "hf_", "aiza", "bearer", "key")
"""What each of these keys has in it, in small letters."""


def redact(text: str, *secrets: str) -> str:
    """The text without anything that looks like a key, and without the given secrets. What tells the kind of key stays readable."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    if text.isascii() and not _has_sign(text.lower()):
        return text  # as good as always, and ten times as quick
    return _KEYS.sub(_without_key, text)


def _has_sign(text: str) -> bool:
    return any(sign in text for sign in _SIGNS)


def _without_key(match: re.Match[str]) -> str:
    return (match["scheme"] or match["query"] or match["header"] or "") + REDACTED
