"""One generation's way through the state machine; the only place that waits, retries and falls back.

What to do is decided by pure functions of the domain, what is written down is made by the ledger, everything outside is behind a port.
Readers may come at any time, so a run publishes to its generation's history rather than yielding to one caller.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from headrace_server.admission import check_provider
from headrace_server.alarm import Alarm, AlarmRang
from headrace_server.clocks import Clocks
from headrace_server.domain import machine, refusals, retry
from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode, Fault, HeadraceError, ProviderFault
from headrace_server.domain.events import Completed, Delta, Discontinuity, Failed, GenerationEvent, ReasoningDelta, StreamChunk, merge
from headrace_server.domain.identity import fingerprint
from headrace_server.domain.lifecycle import TERMINAL, Event, State, Transition
from headrace_server.domain.ports import Reservation, Settlement, Trace
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import DisconnectPolicy, MidStreamFallback
from headrace_server.generation import Generation
from headrace_server.keeper import Keeper, kept_events
from headrace_server.ledger import Ledger, Tried, provider_error
from headrace_server.policies import limits_of, priority_of, retry_policy, time_allowed
from headrace_server.replay import outcome_of, tell_again
from headrace_server.world import Caller, World

log = logging.getLogger(__name__)

SAVE_SOON = 0.05
"""Seconds until the row says that the answer has begun. Nobody waits for that write, and an answer that is over by then spares it."""


class Run:
    """One generation on its way."""

    def __init__(self, world: World, generation: Generation, trace: Trace, caller: Caller) -> None:
        self.world = world
        self.generation = generation
        self.request = generation.request
        self.trace = trace
        self.loop = asyncio.get_running_loop()
        # Wall times are the start's plus what the loop's clock measured since: durations add up whatever the wall clock does.
        self.began = self.loop.time()
        self.start_time = world.clock()
        seconds, self.allowed_by = time_allowed(self.request, caller.time_left, world.settings.total_timeout)
        self.deadline = self.began + seconds
        self.context = machine.Context(
            request_id=self.request.request_id,
            conversation_id=self.request.metadata.conversation_id,
            user_id=self.request.metadata.user_id,
            tags=self.request.metadata.tags,
        )
        self.ledger = Ledger(
            self.request,
            started=self.start_time,
            owner=generation.owner,
            node=world.node,
            trace_id=trace.trace_id,
            price=world.price,
        )
        self.answer = Answer()
        self.on_record = False
        self.held_back: list[GenerationEvent] | None = []
        """Events that wait for a commit: nothing is told that is not on record. None: events go out at once."""
        self.sent = False
        """Whether bytes of the call at hand may have reached the provider."""
        self.delivered = False
        """Whether readers got a chunk that still counts."""
        self.first_chunk_at: float | None = None
        """When the call at hand delivered its first chunk, on the loop's clock."""
        self.counts_from = 0
        """Index of the first chunk that still counts."""
        self._saves_soon: asyncio.TimerHandle | None = None
        self.keeper = self._make_keeper() if self.request.on_disconnect is DisconnectPolicy.KEEP else None
        """Keeps the events in the store: from the start with policy KEEP, else once they are too large for memory."""

    def _make_keeper(self) -> Keeper:
        self.generation.load = partial(kept_events, self.world.journal, self.world.codec, self.request.request_id)
        return Keeper(self.world.journal, self.world.codec, self.generation, self.world.clock)

    def now(self) -> int:
        """Wall time in milliseconds, never ahead of the clock's own."""
        return self.start_time + int((self.loop.time() - self.began) * 1000)

    @property
    def time_left(self) -> int:
        """Milliseconds until the request's deadline."""
        return max(0, round((self.deadline - self.loop.time()) * 1000))

    # ------------------------------------------------------------ beginning and end

    async def to_the_end(self) -> None:
        """Run until the last event has been published. Never raises."""
        alarm = self.loop.call_at(self.deadline, self._out_of_time)
        fault: Fault | None = None
        existing: LogRow | None = None
        try:
            self.generation.begin()
            await self._generate()
        except IdTaken as taken:
            existing = taken.row
        except asyncio.CancelledError as error:
            fault = self.generation.stopped_by or self._unasked(error)
        except HeadraceError as error:
            fault = error.fault
        except Exception as error:  # noqa: BLE001 - a fault of our own must end the request too, and its text stays here
            fault = self._bug(error)
        self.generation.close()
        while (task := asyncio.current_task()) is not None and task.cancelling():
            task.uncancel()
        try:
            try:
                await (self._end(fault) if existing is None else self._tell_again(existing))
            except IdTaken as taken:
                await self._tell_again(taken.row)
        except Exception as error:  # noqa: BLE001
            self._end_unrecorded(error.fault if isinstance(error, HeadraceError) else self._bug(error))
        alarm.cancel()

    def _out_of_time(self) -> None:
        self.generation.stop(refusals.out_of_time(self.allowed_by))

    async def _end(self, fault: Fault | None) -> None:
        """Write the end down, then tell it."""
        if self._saves_soon is not None:
            self._saves_soon.cancel()
        settlement = self._end_attempt(fault) if self.ledger.attempt_is_open else self.ledger.release()
        last_words: list[GenerationEvent] = []
        if fault is None and self.generation.chunk_count > self.counts_from:
            index, attempt = self.generation.chunk_count, self.context.attempt
            last_words = [StreamChunk(index=index, delta=None, attempt=attempt, finish_reason=self.answer.finish_reason, merged=0)]
        if self.keeper is not None:
            # What is kept has been told: a keeper counts the events of the history.
            self._publish(last_words)
            last_words = []
            self.keeper.flush()
        last_words = [*(self.held_back or ()), *last_words]
        self.held_back = []
        self._step(self._last_event(fault), reason="" if fault is None else fault.message)
        result = self.ledger.result(self.context, self.answer, fault)
        error = None if fault is None else self.ledger.error(self.context, fault, result)
        row = self.ledger.row(self.context, self.now(), result=result, error=error)
        if self.on_record and self.world.settings.tell_before_commit:
            self.generation.publish([*last_words, *self.held_back, Completed(result) if error is None else Failed(error)])
        if not self.on_record and await self._accept(row):
            # Ended before anything was tried: this is the row's first write and its last.
            stands = row
        else:
            metrics = self.ledger.metrics(self.context, self.answer, self.now())
            stands = await self.world.journal.finish(row, metrics, [settlement] if settlement else [])
        self.trace.end(stands)
        if self.generation.outcome is not None:
            return
        if (stands.id, stands.state, stands.error_code) == (row.id, row.state, row.error_code):
            last_words += [*self.held_back, Completed(result) if error is None else Failed(error)]
        else:
            # The request was ended by another hand, on record: that is its end.
            last_words += [*stands.transitions[-1:], outcome_of(stands)]
        self.generation.publish(last_words)

    def _end_unrecorded(self, fault: Fault) -> None:
        """The end could not be written down: whatever came before, this is no success."""
        log.error("the end of a request could not be recorded: %s", fault.message, extra={"request_id": self.request.request_id})
        self.trace.drop()
        if self.generation.outcome is None:
            self.generation.publish([Failed(provider_error(fault, request_id=self.request.request_id))])

    def _last_event(self, fault: Fault | None) -> Event:
        if fault is None:
            at_once = self.context.state is State.REQUESTING and not self.answer.is_empty
            return Event.RECEIVE_RESPONSE if at_once else Event.STREAM_COMPLETE
        if self.context.state is State.VALIDATING and fault.code is ErrorCode.INVALID_REQUEST:
            return Event.VALIDATION_FAILED
        return Event.REQUEST_FAILED

    def _unasked(self, error: asyncio.CancelledError) -> Fault:
        """A cancellation that is no stop: the loop ends, or a library raised it by itself, which is a bug like any other."""
        task = asyncio.current_task()
        return refusals.interrupted() if task is not None and task.cancelling() else self._bug(error)

    def _bug(self, error: BaseException) -> Fault:
        incident = secrets.token_hex(8)
        log.error("internal error", exc_info=error, extra={"incident": incident, "request_id": self.request.request_id})
        return refusals.internal(incident)

    # ------------------------------------------------------------ the way

    async def _generate(self) -> None:
        """Until an answer is complete. Raises HeadraceError with the fault that nothing mended, or IdTaken."""
        self._step(Event.INITIATE_REQUEST, at=self.start_time)
        targets = self.world.routes.route(self.request)
        self.generation.providers = tuple(provider.provider for provider, _ in targets)
        self.context = self.context.with_target(targets[0][0].provider, targets[0][1])
        cause: Fault | None = None
        for number, (provider, model) in enumerate(targets, start=1):
            try:
                return await self._try(provider, model)
            except HeadraceError as error:
                fault = error.fault
            was_called = bool(self.ledger.tried) and self.ledger.tried[-1].provider is provider
            if was_called or cause is None:
                cause = fault
            if number == len(targets) or not self._may_fall_back(fault):
                if not was_called and self.ledger.tried:
                    # One that was only passed over does not hide what really went wrong before it.
                    last = self.ledger.tried[-1]
                    last.stood_in_by = None
                    self.context = self.context.with_target(last.provider.provider, last.model)
                raise HeadraceError(cause)
            await self._give_back()
            self._fall_back(provider, targets[number], fault)

    async def _try(self, provider: Provider, model: str) -> None:
        """Ask one provider, as often as its retry policy allows. Raises HeadraceError."""
        check_provider(self.request, provider, self.world)
        policy = retry_policy(self.request, provider)
        self.context = replace(self.context, max_attempts=policy.max_attempts)
        async with self.world.queues.place(provider, priority_of(self.request), self.time_left, self._wait_in_the_queue):
            await self._admit(provider, model)
            tried = Tried(provider=provider, model=model, began=self.now())
            try:
                while True:
                    try:
                        return await self._call(tried)
                    except ProviderFault as error:
                        await self._before_next(tried, error.fault, policy)
            finally:
                tried.ended = self.now()

    async def _wait_in_the_queue(self, wait: int) -> None:
        await self._make_sure_of_the_row()
        self._step(Event.RATE_LIMIT_HIT, reason=f"in the queue: all places of {self.context.provider} are taken", wait=wait)
        self._save()

    async def _admit(self, provider: Provider, model: str) -> None:
        """Reserve in our own limits; where they are full, wait in the state RATE_LIMITED if the deadline allows. Raises HeadraceError."""
        if limits := limits_of(provider):
            await self._make_sure_of_the_row()
            reservation = Reservation(
                request_id=self.request.request_id,
                attempt=self.context.attempt + 1,
                provider=provider.provider,
                model=model,
                tokens=self.ledger.input_estimate + (self.request.max_tokens or self.world.settings.default_output_tokens),
                zone=provider.config.zone,
            )
            while (refused := await self.world.journal.reserve(reservation, limits, self.world.clock())) is not None:
                fault = refusals.over_our_limit(refused)
                if refused.retry_after is None or refused.retry_after >= self.time_left:
                    raise HeadraceError(fault)
                if self.context.state is not State.RATE_LIMITED:
                    self._step(Event.RATE_LIMIT_HIT, reason=fault.message, wait=refused.retry_after)
                    self._save()
                await asyncio.sleep(refused.retry_after / 1000)
            self.ledger.reservation = reservation
        if self.context.state is State.RATE_LIMITED:
            self._step(Event.RETRY_REQUEST)

    async def _give_back(self) -> None:
        """What was reserved for a call that was not begun."""
        if (settlement := self.ledger.release()) is not None:
            await self.world.journal.settle(settlement, self.world.clock())

    async def _before_next(self, tried: Tried, fault: Fault, policy: retry.RetryPolicy) -> None:
        """A call failed: do what must come before the next one, up to the state RETRYING. Raises HeadraceError where there is none."""
        self.context = self.context.with_error(fault)
        settlement = self._end_attempt(fault)
        # In one batch, so in one transaction: how the attempt ended, and what its reservation became.
        self._save()
        if settlement is not None:
            await self.world.journal.settle(settlement, self.world.clock())
        decision = retry.decide(
            fault, policy, attempt=tried.calls, delivered=self.delivered, time_left=self.time_left, random=self.world.random()
        )
        if isinstance(decision, retry.Leave):
            raise HeadraceError(replace(fault, retry_after=fault.retry_after or decision.retry_after))
        self._check_retry(tried.provider, fault)
        if fault.code is ErrorCode.RATE_LIMIT_EXCEEDED:
            self._step(Event.RATE_LIMIT_HIT, reason=fault.message, wait=decision.delay)
            self._save()
            await asyncio.sleep(decision.delay / 1000)
            await self._admit(tried.provider, tried.model)
        else:
            # The limiter admits before the state says so: what is in `retrying` is never refused.
            await self._admit(tried.provider, tried.model)
            if self.context.state is State.REQUESTING:
                self._step(Event.RETRY_REQUEST, reason=fault.message, wait=decision.delay)
            self._save()
            await asyncio.sleep(decision.delay / 1000)
        self._check_circuit(tried.provider, fault)

    def _check_retry(self, provider: Provider, fault: Fault) -> None:
        """Whether circuit and retry budget allow one more call. A delay that a rate limit named costs nothing of the budget.

        Raises HeadraceError with the fault that would have been retried.
        """
        self._check_circuit(provider, fault)
        told_when = fault.code is ErrorCode.RATE_LIMIT_EXCEEDED and fault.retry_after is not None
        if not told_when and not self.world.health.take_retry(provider):
            raise HeadraceError(refusals.not_retried(fault, "the retry budget of the provider is used up"))

    def _check_circuit(self, provider: Provider, fault: Fault) -> None:
        if not self.world.health.lets_through(provider):
            raise HeadraceError(refusals.not_retried(fault, "the circuit of the provider is open"))

    def _may_fall_back(self, fault: Fault) -> bool:
        wanted = self.request.fallback
        return retry.may_fall_back(
            fault,
            delivered=self.delivered,
            restart=wanted.mid_stream is MidStreamFallback.RESTART,
            on_context_length=bool(wanted.on_context_length),
            on_content_filter=bool(wanted.on_content_filter),
        )

    def _fall_back(self, failed: Provider, following: tuple[Provider, str], fault: Fault) -> None:
        provider, model = following
        why = f"{failed.provider}: {fault.message}"
        if self.ledger.tried and self.ledger.tried[-1].provider is failed:
            self.ledger.tried[-1].stood_in_by = provider.provider
        self.context = self.context.with_error(fault).with_fallback(provider.provider, model)
        self._step(Event.FALLBACK_TO_PROVIDER, reason=why)
        if self.delivered:
            self._publish(
                [
                    Discontinuity(
                        attempt=self.context.attempt + 1,
                        provider=provider.provider,
                        model=model,
                        discard_from_index=self.counts_from,
                        reason=why,
                    )
                ]
            )
            self.counts_from = self.generation.chunk_count
            self.delivered = False

    # ------------------------------------------------------------ one call

    async def _call(self, tried: Tried) -> None:
        """One call, from its intent on record to the end of its answer. Raises ProviderFault, or HeadraceError where it may not go out."""
        leave = self.world.health.begin(tried.provider, again=tried.calls > 0)
        try:
            self._step(Event.VALIDATION_PASSED if self.context.state is State.VALIDATING else Event.SEND_REQUEST)
            self.answer, self.sent, self.first_chunk_at = Answer(), False, None
            began = self.loop.time()
            self.ledger.begin_attempt(tried, self.now())
            await self._intend()
            await self._read_answer(tried)
            leave.ended(None, round(((self.first_chunk_at or self.loop.time()) - began) * 1000))
        except ProviderFault as error:
            leave.ended(error.fault, 0)
            raise
        finally:
            leave.given_up()
        tried.success = True

    async def _read_answer(self, tried: Tried) -> None:
        clocks = self._clocks(tried.provider)
        call = None
        try:
            with Alarm(clocks.look) if clocks is not None else nullcontext():
                call = await self.world.upstream.call(
                    self.request,
                    tried.provider,
                    tried.model,
                    traceparent=self.trace.attempt(),
                    connect_timeout=tried.provider.timeout_ms / 1000,
                    begins=self._begins,
                )
                self.answer, self.ledger.left = call.answer, call.left
                while (deltas := await call.read()) is not None:
                    if clocks is not None:
                        clocks.saw(self.loop.time(), content=bool(deltas))
                    if deltas:
                        self._deliver(deltas, tried, whole=call.whole)
                    if self.generation.is_ahead:
                        await self._wait_for_readers(clocks)
        except AlarmRang:
            assert clocks is not None
            raise ProviderFault(clocks.fault(sent=self.sent)) from None
        finally:
            if call is not None:
                # One that is stopped while it closes still closes.
                await asyncio.shield(call.close())

    def _begins(self) -> None:
        self.sent = True

    async def _wait_for_readers(self, clocks: Clocks | None) -> None:
        """Read nothing while the readers take nothing: the provider's socket fills, and it waits too. Its clocks stand still meanwhile."""
        if clocks is not None:
            clocks.stop(self.loop.time())
        await self.generation.caught_up()
        if clocks is not None:
            clocks.go_on(self.loop.time())

    def _clocks(self, provider: Provider) -> Clocks | None:
        """The clocks of a stream; a whole answer is bounded by connecting and the total only."""
        if not self.request.stream:
            return None
        wanted = self.request.timeouts
        return Clocks(
            first_token=(wanted.first_token or provider.timeout_ms) / 1000,
            idle=(wanted.idle or provider.timeout_ms) / 1000,
            progress=(wanted.progress or self.world.settings.progress_timeout) / 1000,
            started=self.loop.time(),
        )

    def _deliver(self, deltas: Sequence[Delta], tried: Tried, *, whole: bool) -> None:
        """Turn deltas into chunks and publish them."""
        if self.request.reasoning is not None and self.request.reasoning.hide:
            deltas = [delta for delta in deltas if not isinstance(delta, ReasoningDelta)]
        merged = merge(deltas)
        if not merged:
            return
        now = self.now()
        if not self.delivered:
            if self.request.stream or not whole:
                self._step(Event.RECEIVE_STREAM_CHUNK)
                if self.keeper is None:
                    self._saves_soon = self.loop.call_later(SAVE_SOON, self._save_now)
                else:
                    self._save()  # what is kept has the transition in it
            self.first_chunk_at = self.loop.time()
            tried.first_token_latency = max(0, now - tried.began)
            self.delivered = True
            self.context = self.context.with_chunk(now, len(merged))
        index, attempt = self.generation.chunk_count, self.context.attempt
        received = now if self.request.timing else None
        self._publish(
            [
                StreamChunk(index=index + i, delta=delta, attempt=attempt, merged=count, received=received)
                for i, (delta, count) in enumerate(merged)
            ]
        )
        tried.chunks += len(merged)

    def _end_attempt(self, fault: Fault | None) -> Settlement | None:
        # A context is made anew with each change, so the chunks after the first are counted together.
        now, uncounted = self.now(), self.generation.chunk_count - self.context.stream.chunks_received
        if uncounted:
            self.context = self.context.with_chunk(now, uncounted)
        return self.ledger.end_attempt(fault, self.answer, now, sent=self.sent, delivered=self.delivered)

    # ------------------------------------------------------------ telling and writing

    def _step(self, event: Event, *, reason: str = "", wait: int | None = None, at: int | None = None) -> None:
        """Apply an event to the machine and tell the transition."""
        if event in (Event.VALIDATION_PASSED, Event.SEND_REQUEST):
            self.context = self.context.with_attempt()
        self.context, transition = machine.advance(
            self.context, event, at=self.now() if at is None else at, reason=reason[:1024], wait=wait
        )
        if isinstance(transition, Transition):
            self._publish([transition])

    def _publish(self, events: Sequence[GenerationEvent]) -> None:
        if self.held_back is None:
            self._tell(events)
        else:
            self.held_back += events

    def _release(self) -> None:
        """What was held back may be told, and from here on everything at once."""
        held, self.held_back = self.held_back or [], None
        self._tell(held)

    def _tell(self, events: Sequence[GenerationEvent]) -> None:
        self.generation.publish(events)
        if self.keeper is not None:
            self.keeper.add(events)
        elif self.generation.is_too_large:
            self.keeper = self._make_keeper()
            self._save()
            self.keeper.add(self.generation.since(0))

    async def _accept(self, row: LogRow) -> bool:
        """Commit the request's first row; False where an earlier try, which was stopped before it knew, had done so. Raises IdTaken."""
        existing = await self.world.journal.accept(row)
        if existing is not None and existing.id != row.id:
            raise IdTaken(existing)
        self.on_record = True
        self.generation.was_accepted()
        return existing is None

    async def _make_sure_of_the_row(self) -> None:
        if not self.on_record:
            await self._accept(self.ledger.row(self.context, self.now()))
            self._release()

    async def _intend(self) -> None:
        """Commit that a call is about to go out: where no intent is on record, nothing was sent."""
        if not self.on_record:
            return await self._make_sure_of_the_row()
        await self.world.journal.update(self.ledger.row(self.context, self.now()))
        standing = await self.world.journal.get(self.request.request_id)
        if standing is None or standing.state in TERMINAL:
            # Another hand has ended the request: the intent is not on record.
            raise HeadraceError(refusals.interrupted())

    def _save_now(self) -> None:
        self._saves_soon = None
        self._save()

    def _save(self) -> None:
        """Write the row as it stands, without waiting; if that fails, the next write that is waited for tells."""
        if self.on_record:
            self.world.journal.update(self.ledger.row(self.context, self.now())).add_done_callback(_look_away)

    # ------------------------------------------------------------ an id that is there already

    async def _tell_again(self, existing: LogRow) -> None:
        """The same content is answered from its row, other content is refused."""
        try:
            if existing.request_fingerprint != fingerprint(self.request):
                raise refusals.already_exists(self.request.request_id, existing.request_data, self.request)
            while existing.state not in TERMINAL:
                # Another process runs it: its end is all that can be seen from here.
                if self.generation.stopped_by is not None:
                    raise HeadraceError(self.generation.stopped_by)
                await asyncio.sleep(self.world.settings.poll_interval / 1000)
                existing = await self.world.journal.get(existing.request_id) or existing
        except HeadraceError as error:
            self.generation.publish([Failed(provider_error(error.fault, request_id=self.request.request_id))])
        else:
            await tell_again(existing, self.generation, self.world.journal, self.world.codec)
            self.generation.was_accepted()
        self.trace.drop()


class IdTaken(Exception):
    """The request's id has a row already."""

    def __init__(self, row: LogRow) -> None:
        self.row = row


def _look_away(write: asyncio.Future[None]) -> None:
    if not write.cancelled():
        write.exception()
