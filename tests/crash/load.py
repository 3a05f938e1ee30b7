"""Work for a service that is about to die: everything that callers do and everything that goes wrong with providers, by chance."""

import asyncio
from random import Random

from crash.callers import Callers
from crash.stage import CLAUDE, DEAD, LIMITED, TIGHT, UNLIMITED, Stage
from headrace.v1 import request_pb2
from headrace_server.fake_provider import Break, Step

POLICIES = (
    request_pb2.DISCONNECT_POLICY_CANCEL,
    request_pb2.DISCONNECT_POLICY_DRAIN,
    request_pb2.DISCONNECT_POLICY_KEEP,
)


async def play(stage: Stage, callers: Callers, random: Random) -> None:
    """Ask in every way there is, all at once, until everything has ended or the service has."""
    stage.provider.script.clear()
    stage.provider.script.extend(_fate(random) for _ in range(60))
    known = list(stage.sent)
    again = [stage.sent[request_id].message for request_id in stage.streamed[-40:] if request_id in stage.sent]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            messages = [_request(callers, random) for _ in range(random.randint(2, 6))]
            stage.streamed += [message.request_id for message in messages]
            if again and random.random() < 0.5:
                messages.append(random.choice(again))
            tasks.create_task(
                callers.stream(
                    messages,
                    pause=random.choice((0, 0.005, 0.03)),
                    cancel=[random.choice(messages).request_id] if random.random() < 0.4 else (),
                    leave_after=random.uniform(0.05, 0.3) if random.random() < 0.4 else None,
                )
            )
        for _ in range(3):
            tasks.create_task(callers.generate(_request(callers, random)))
        for _ in range(2):
            tasks.create_task(callers.submit(_request(callers, random)))
        tasks.create_task(callers.generate(callers.invalid()))
        if known:
            tasks.create_task(callers.attach(random.choice(known)))


def _request(callers: Callers, random: Random) -> request_pb2.GenerateRequest:
    """Some request to some provider."""
    provider = random.choices((LIMITED, UNLIMITED, CLAUDE, TIGHT, DEAD), (10, 3, 3, 2, 2))[0]
    fallback = request_pb2.FallbackConfig(enabled=False)
    if random.random() < 0.6:
        restart = random.choice((request_pb2.MID_STREAM_FALLBACK_NEVER, request_pb2.MID_STREAM_FALLBACK_RESTART))
        others = [name for name in (LIMITED, CLAUDE, UNLIMITED) if name != provider]
        fallback = request_pb2.FallbackConfig(enabled=True, providers=random.sample(others, 2), mid_stream=restart)
    message = callers.request(provider, fallback=fallback, on_disconnect=random.choice(POLICIES), quiet=random.random() < 0.3)
    if random.random() < 0.3:
        message.max_tokens = random.choice((3, 500))
    return message


def _fate(random: Random) -> Step:
    """What becomes of a call."""
    broken = Break(kind=random.choice(("cut", "reset", "stall")), after_events=random.randint(0, 8))
    # Not a reset: that of a kept connection is taken for an idle close, and the request is sent once more within the same attempt.
    no_answer = Break(kind="stall", before_headers=True)
    paced = random.choice((0, 2, 10))
    return random.choices(
        (
            Step(pace_ms=paced),
            Step(pace_ms=paced, delay_ms=random.choice((5, 60))),
            Step(status=500),
            Step(status=429, headers={"retry-after-ms": "15"}),
            Step(status=400),
            Step(pace_ms=paced, fault=broken),
            Step(fault=no_answer),
        ),
        (50, 10, 10, 6, 3, 12, 5),
    )[0]
