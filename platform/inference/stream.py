"""One metered request for a stream: failover that nobody sees before the first token, and none unasked after it.

call 1 fails ──▶ call 2 answers: Answering(target), Burst, Burst, …, Burst with Finished
cut after the first token ──▶ the error is raised; or, where that was asked for, Continued(next target), Burst, …
"""

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from inference.breaker import NO_BREAKER, Breaker
from inference.calls import Ledger, Trace
from inference.continuation import Continuation
from inference.course import Course
from inference.recorded import recorded
from inference.retry_budget import Retries
from inference.routing import ProviderSpec, Target, able
from providers.errors import Interrupted, Overloaded, ProviderError
from providers.types import Burst, CallContext, ChatRequest, Provider


@dataclass(frozen=True, slots=True)
class Answering:
    """This target answers; its bursts follow."""

    target: Target


@dataclass(frozen=True, slots=True)
class Continued:
    """The answer was cut, and this target goes on with it."""

    target: Target


Part: TypeAlias = Answering | Burst | Continued


async def stream(
    request: ChatRequest,
    targets: tuple[Target, ...],
    *,
    trace: Trace,
    ledger: Ledger,
    retries: Retries,
    deadline_seconds: float,
    provider_for: Callable[[ProviderSpec], Provider],
    chance: random.Random,
    breaker: Breaker = NO_BREAKER,
    continuation: bool = False,
) -> AsyncGenerator[Part, None]:
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
    course = Course(
        request.model,
        able(targets, request),
        retries=retries,
        deadline_seconds=deadline_seconds,
        chance=chance,
        breaker=breaker,
    )
    said = Continuation(request) if continuation else None
    cut: ProviderError | None = None
    while (target := await course.next_target()) is not None:
        has_begun = False
        asked = said.request() if said is not None else request
        try:
            bursts = _call(asked, target, course, trace, ledger, provider_for)
            async with aclosing(bursts):
                async for burst in bursts:
                    if not has_begun:
                        has_begun = True
                        yield Answering(target) if cut is None else Continued(target)
                    yield burst if said is None else said.add(burst, trace)
            return
        except ProviderError as error:
            if has_begun:
                if said is None or not said.can_go_on_after(error, trace):
                    raise
                cut = error
            await course.go_on(error)
    raise cut or course.failure or Overloaded("The retry budget is spent.")


async def _call(
    request: ChatRequest,
    target: Target,
    course: Course,
    trace: Trace,
    ledger: Ledger,
    provider_for: Callable[[ProviderSpec], Provider],
) -> AsyncGenerator[Burst, None]:
    """Make one call; yield what it brings, from its first token on."""
    upstream = replace(request, model=target.upstream_model)
    held: list[Burst] = []
    async with course.asking(target) as asking, recorded(request, target, trace, ledger) as watch:
        context = CallContext(watch.opened.call_id, total_seconds=course.remaining_seconds)
        async with aclosing(provider_for(target.provider).stream(upstream, context)) as bursts:
            async for burst in bursts:
                watch.add(burst)
                held.append(burst)
                if watch.collector.finished is not None:
                    break
                # A start is not worth more than another provider's answer, should this one fail.
                if watch.has_begun:
                    await asking.answers()
                    # `held` is one burst, but for the first time.
                    for each in held:
                        yield each
                    held.clear()
            else:
                raise Interrupted("The provider's stream ended before its end was said.")
    # The call is closed before its last burst is passed on: who takes that seldom comes back for more.
    for each in held:
        yield each
