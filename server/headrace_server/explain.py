"""What would become of a request, found out without calling anyone and without writing anything down.

It asks the same routes, checks, queues and limits as a run does, in the same order.
"""

from headrace_server.admission import check_provider
from headrace_server.domain import limits, refusals
from headrace_server.domain.errors import Fault, HeadraceError, Refusal, Violation
from headrace_server.domain.limits import Refused, Window
from headrace_server.domain.plan import Plan, PlannedProvider
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.ledger import input_tokens
from headrace_server.policies import limits_of, priority_of
from headrace_server.quotas import counters_of
from headrace_server.world import World


async def explain(request: GenerateRequest, world: World, time_left: int) -> Plan:
    """The plan of a request that has so many milliseconds."""
    now = world.clock()
    try:
        targets = world.routes.route(request)
    except Refusal as refusal:
        return Plan(time=now, violations=refusal.fault.violations or (Violation(field="provider", description=refusal.fault.message),))
    tokens = input_tokens(request) + (request.max_tokens or world.settings.default_output_tokens)
    planned: list[PlannedProvider] = []
    waits: list[int] = []
    faults: list[Fault] = []
    for provider, model in targets:
        stored = await world.journal.list_windows(provider.provider, model) if limits_of(provider) else ()
        windows = counters_of(provider, model, stored, now)
        skip_reason = ""
        try:
            check_provider(request, provider, world)
            in_the_queue = world.queues.check(provider, priority_of(request), time_left)
            waits.append(max(in_the_queue, _wait_for(windows, tokens, now, provider, time_left)))
        except HeadraceError as error:
            faults.append(error.fault)
            skip_reason = _reason(error.fault)
        planned.append(PlannedProvider(provider=provider.provider, model=model, skip_reason=skip_reason, windows=windows))
        if skip_reason and not faults[-1].fallback:
            break
    if waits:
        return Plan(time=now, providers=tuple(planned), expected_wait=waits[0])
    # Nobody would be asked, and the request would fail with the first reason there was.
    return Plan(time=now, providers=tuple(planned), violations=faults[0].violations)


def _wait_for(windows: tuple[Window, ...], tokens: int, now: int, provider: Provider, time_left: int) -> int:
    """Milliseconds until the limits would admit the request. Raises HeadraceError where they never would, or not in time."""
    admitted = limits.admit(windows, tokens, now, provider.config.zone)
    if not isinstance(admitted, Refused):
        return 0
    if admitted.retry_after is None or admitted.retry_after >= time_left:
        raise HeadraceError(refusals.over_our_limit(admitted))
    return admitted.retry_after


def _reason(fault: Fault) -> str:
    """Why a provider would be passed over, in one line."""
    details = "; ".join(f"{violation.field} {violation.description}" for violation in fault.violations[:8])
    later = "" if fault.retry_after is None else f"; possible in {fault.retry_after / 1000:.3g} s"
    return f"{fault.message}{f' ({details})' if details else ''}{later}"
