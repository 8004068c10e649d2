"""Records the call in progress in Redis, so that the calls of a killed process are still accounted for."""

from dataclasses import dataclass

import structlog
from django.conf import settings

from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from inference.calls import CallClosed, CallOpened, CallTrace
from inference.context import InferenceContext
from inference.usage_records import to_open_usage_record, to_usage_record
from live.admit import AdmittedRequest
from live.runtime import LiveRuntime
from metering.buffer import encode_usage_record
from providers.types import Usage

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveLedger:
    """The `CallLedger` of one live request."""

    runtime: LiveRuntime
    admitted: AdmittedRequest

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        if call.number == 1:
            # The admission opened it, in the same round trip.
            return
        attribution = self.admitted.attribution
        usage_record = to_open_usage_record(attribution, call, Usage(self.admitted.input_tokens))
        try:
            with translate_redis_errors():
                key = open_calls_key(self.runtime.heartbeat.id)
                pipeline = self.runtime.redis.pipeline(transaction=False)
                pipeline.hset(key, self.admitted.admission.request_id, encode_usage_record(usage_record))
                if previous_call is not None:
                    # The new call overwrites it. `settle` sends it again, which is idempotent.
                    pipeline.rpush(USAGE_RECORDS_KEY, encode_usage_record(to_usage_record(attribution, previous_call)))
                await pipeline.execute()
        except RedisUnavailable:
            # The call is made nevertheless; its usage is lost only if this process is killed during the call.
            log.warning("open_usage_record_not_saved", call=call.call_id)


def inference_context(runtime: LiveRuntime, admitted: AdmittedRequest, trace: CallTrace) -> InferenceContext:
    """Return the collaborators and limits of an admitted request's calls; the calls are recorded in its ledger."""
    return InferenceContext(
        trace=trace,
        ledger=LiveLedger(runtime, admitted),
        retry_budget=runtime.retry_budgets.for_site(admitted.caller.identity.site.id),
        deadline_seconds=settings.LIVE_TIMEOUT_SECONDS,
        provider_for=runtime.clients,
        rng=runtime.rng,
        breaker=runtime.breakers,
    )
