"""Which dialect serves which provider: one row each, and that row is the whole change when one is added."""

from collections.abc import Mapping
from typing import Final

from headrace_server.domain.provider import Dialect as Name
from headrace_server.domain.provider import Provider
from headrace_server.providers.claude import Claude
from headrace_server.providers.dialect import Dialect
from headrace_server.providers.gemini import Gemini
from headrace_server.providers.openai import OpenAIChat
from headrace_server.providers.openai_responses import OpenAIResponses

DIALECTS: Final[Mapping[tuple[Name, str], Dialect]] = {
    (Name.CLAUDE, ""): Claude(),
    (Name.GEMINI, ""): Gemini(),
    (Name.OPENAI, "chat"): OpenAIChat(),
    (Name.OPENAI, "responses"): OpenAIResponses(),
}
"""By dialect, and by API where a dialect has several. The objects keep no state and serve all calls."""


def dialect_for(provider: Provider) -> Dialect:
    """The dialect that a provider is spoken to in."""
    return DIALECTS.get((provider.dialect, "")) or DIALECTS[provider.dialect, provider.config.api]
