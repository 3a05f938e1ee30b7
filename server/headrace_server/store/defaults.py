"""The built-in providers, as the migrations write them; a test compares the two."""

from headrace_server.domain.provider import Dialect, ProviderRow

_DEFAULTS = (
    ("06ee8575-f48e-594d-a569-4c0648d64f25", Dialect.CLAUDE, "https://api.anthropic.com", "claude-sonnet-5-5"),
    ("d182ccfe-99f7-5e07-877c-82f4b9cf7bea", Dialect.GEMINI, "https://generativelanguage.googleapis.com", "gemini-3.8-flash"),
    ("be85aa1f-f180-5307-8f9a-a6cf4a8383ed", Dialect.OPENAI, "https://api.openai.com/v1", "gpt-6.1-sol"),
)


def default_providers(now: int) -> list[ProviderRow]:
    """One provider for each dialect, by priority."""
    return [
        ProviderRow(
            id=id,
            provider=dialect.value,
            dialect=dialect,
            priority=priority,
            api_url=api_url,
            default_model=model,
            created_at=now,
            updated_at=now,
        )
        for priority, (id, dialect, api_url, model) in enumerate(_DEFAULTS, start=1)
    ]
