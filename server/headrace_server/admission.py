"""Whether a provider can be asked: one answer for requests that are sent and for those that are only explained."""

from dataclasses import replace

from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, HeadraceError, Subreason, invalid
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.world import World


def check_provider(request: GenerateRequest, provider: Provider, world: World) -> None:
    """Whether this provider can be asked at all. Raises HeadraceError."""
    name = provider.provider
    if not provider.enabled:
        raise refusals.unusable(ErrorCode.SERVER_ERROR, f"the provider {name!r} is disabled", Subreason.PROVIDER_DISABLED)
    if not provider.is_ready:
        raise refusals.unusable(ErrorCode.AUTHENTICATION_ERROR, f"the provider {name!r} has no API key", Subreason.NO_API_KEY)
    world.health.check(provider)
    if violations := world.upstream.check(request, provider):
        refusal = invalid(violations, f"the provider {name!r} cannot express the request")
        # One that the caller chose is not replaced behind their back; one that routing chose is passed over.
        chosen = request.provider == name
        raise HeadraceError(replace(refusal.fault, fallback=not chosen))
