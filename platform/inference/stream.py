"""One metered request for a stream: failover that nobody sees before the first token, and none unasked after it.

call 1 fails ──▶ call 2 answers: TargetSelected(target), Burst, Burst, …, Burst with Finished
cut after the first token ──▶ the error is raised; or, where that was asked for, TargetSwitched(next target), Burst, …
"""

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from inference.call_recorder import record_call
from inference.calls import CallLedger, CallTrace
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.continuation import Continuation
from inference.failover import FailoverPlan
from inference.retry_budget import RequestRetryBudget
from inference.routing import ProviderSpec, Target, filter_capable
from providers.errors import ProviderError, ProviderOverloaded, ResponseInterrupted
from providers.types import Burst, CallContext, ChatRequest, Provider


@dataclass(frozen=True, slots=True)
class TargetSelected:
    """This target answers; its bursts follow."""

    target: Target


@dataclass(frozen=True, slots=True)
class TargetSwitched:
    """The answer was cut, and this target goes on with it."""

    target: Target


StreamPart: TypeAlias = TargetSelected | Burst | TargetSwitched


async def stream(
    request: ChatRequest,
    targets: tuple[Target, ...],
    *,
    trace: CallTrace,
    ledger: CallLedger,
    retry_budget: RequestRetryBudget,
    deadline_seconds: float,
    provider_for: Callable[[ProviderSpec], Provider],
    rng: random.Random,
    breaker: CircuitBreaker = NO_CIRCUIT_BREAKER,
    continuation: bool = False,
) -> AsyncGenerator[StreamPart, None]:
    """Yield who answers, then what comes; the last burst holds `Finished`, or this raises.

    With `continuation` an answer that was cut is gone on with by the next provider, which is told the text so far.
    Bursts have no frames then: those of two answers do not make one.

    Close it when you stop before the end: that closes the call upstream. Every call is in the trace then, too.

    Raises:
        InvalidRequest: no target can do all that is asked for.
        NoProvider: no target has a key.
        ProviderError: nobody answered, or the answer was cut.
        Exception: what the ledger raises; the call it was told of has then not been made.
    """
    plan = FailoverPlan(
        request.model,
        filter_capable(targets, request),
        retry_budget=retry_budget,
        deadline_seconds=deadline_seconds,
        rng=rng,
        breaker=breaker,
    )
    continued_answer = Continuation(request) if continuation else None
    cut: ProviderError | None = None
    while (target := await plan.next_target()) is not None:
        has_content = False
        asked = continued_answer.request() if continued_answer is not None else request
        try:
            bursts = _call(asked, target, plan, trace, ledger, provider_for)
            async with aclosing(bursts):
                async for burst in bursts:
                    if not has_content:
                        has_content = True
                        yield TargetSelected(target) if cut is None else TargetSwitched(target)
                    yield burst if continued_answer is None else continued_answer.add(burst, trace)
            return
        except ProviderError as error:
            if has_content:
                if continued_answer is None or not continued_answer.can_continue_after(error, trace):
                    raise
                cut = error
            await plan.handle_failure(error)
    raise cut or plan.failure or ProviderOverloaded("The retry budget is exhausted.")


async def _call(
    request: ChatRequest,
    target: Target,
    plan: FailoverPlan,
    trace: CallTrace,
    ledger: CallLedger,
    provider_for: Callable[[ProviderSpec], Provider],
) -> AsyncGenerator[Burst, None]:
    """Make one call; yield what it brings, from its first token on."""
    upstream = replace(request, model=target.upstream_model)
    held: list[Burst] = []
    async with plan.track_call(target) as call, record_call(request, target, trace, ledger) as recorder:
        context = CallContext(recorder.opened.call_id, total_seconds=plan.remaining_seconds)
        async with aclosing(provider_for(target.provider).stream(upstream, context)) as bursts:
            async for burst in bursts:
                recorder.add(burst)
                held.append(burst)
                if recorder.collector.finished is not None:
                    break
                # A start is not worth more than another provider's answer, should this one fail.
                if recorder.has_content:
                    await call.report_answered()
                    # `held` is one burst, but for the first time.
                    for each in held:
                        yield each
                    held.clear()
            else:
                raise ResponseInterrupted("The provider's stream ended without a final event.")
    # The call is closed before its last burst is passed on: who takes that seldom comes back for more.
    for each in held:
        yield each
