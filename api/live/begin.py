"""From a proven request to one that may begin: what is wanted, who could serve it, and whether there is room."""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass, replace

import msgspec
import structlog
from django.conf import settings

from api.errors import LimitReached, NoFastMemory, TooManyAtOnce
from api.live.asked import Asked
from api.live.desk import LiveDesk
from api.live.edges import Wanted
from api.live.who import Known, use_up
from core import clock, metrics
from core.redis import RedisAway, redis_errors
from inference import cache
from inference.accounts import Asker, to_open_account
from inference.calls import CallOpened
from inference.permit import Permitted, permit
from inference.routing import Target, order, with_key
from jobs.errors import IdempotencyConflict
from metering.buffer import to_entry
from providers.dialects.errors import InvalidRequest
from providers.types import ChatRequest, Usage
from streams.entries import Record, process_key
from streams.errors import StreamUnknown
from streams.follow import PEEK_SECONDS, find_record
from streams.ids import age_seconds, new_stream_id
from tenants.admission.admission import admit, drop_key
from tenants.admission.asks import Admitted, Ask, Attach, Hit, KeyReused, Limited, NonceUsed, Outcome
from tenants.admission.asks import TooManyAtOnce as Full
from tenants.admission.rules import SiteLimits, limits_for
from tenants.admission.windows import Left
from tenants.errors import Replayed
from tenants.models import LimitedKind

log = structlog.get_logger(__name__)

IDEMPOTENCY_FORM = re.compile(r"[\x20-\x7e]{1,255}")
#: A stream that another process is about to begin is waited for so long.
PATIENCE_SECONDS = 5.0
#: Reserved for an answer whose length nobody bounded.
ANSWER_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that was let in."""

    known: Known
    wanted: Wanted
    #: In the order in which they will be asked.
    targets: tuple[Target, ...]
    asker: Asker
    ask: Ask
    #: None: it was let in uncounted, for Redis is away.
    admitted: Admitted | None
    input_tokens: int
    #: Vectors of it may be kept, and given again.
    may_cache: bool = False

    @property
    def left(self) -> tuple[Left, ...]:
        return self.admitted.left if self.admitted else ()


async def begin(
    desk: LiveDesk, known: Known, asked: Asked, wanted: Wanted, *, stream_id: str | None = None
) -> Begun | Attach | Hit:
    """Let the request in, or find its answer: attached to a stream that runs or ran, or kept.

    Raises:
        InvalidRequest, RequestTooLong: the body asks for what cannot be.
        ModelNotAllowed, UnknownModel, NoProvider: nobody serves the model, or not to this caller.
        LimitReached: there is no room now.
        IdempotencyConflict: the key stands for another body.
        Replayed: the signed request was let in before.
        NoFastMemory: Redis is away, and LIVE_WITHOUT_REDIS is `closed`.
    """
    site, routing = known.identity.site, await desk.glances.routing()
    permitted = permit(wanted.request, site, known.identity.grant, routing, provider=wanted.provider)
    wanted = replace(wanted, request=permitted.request)
    targets = _in_order(desk, wanted.request.model, permitted.targets)
    allowed = await limits_for(site.id, desk.threads)
    asker = Asker(site.id, wanted.request.model, asked.request_id)
    ask = _ask(desk, known, asked, wanted, targets, asker, allowed, permitted, stream_id or new_stream_id())
    outcome: Outcome | None
    try:
        outcome = await _admit(desk, known, ask)
    except RedisAway as error:
        await _go_on_without(desk, known, error)
        outcome = None
    match outcome:
        case Admitted() | None:
            return Begun(known, wanted, targets, asker, ask, outcome, permitted.input_tokens, may_cache(asked))
        case Attach() | Hit():
            return outcome
        case Limited():
            raise _refused(outcome)
        case Full(limit):
            metrics.refused.labels("concurrency").inc()
            raise TooManyAtOnce(f"{limit} requests of this site are under way, as many as may be at once.", 1.0)
        case NonceUsed():
            raise Replayed
        case KeyReused():
            raise IdempotencyConflict


async def _admit(desk: LiveDesk, known: Known, ask: Ask) -> Outcome:
    outcome = await admit(desk.server, ask)
    if isinstance(outcome, Attach) and await _is_gone(desk, known, outcome.stream_id):
        # What was answered then cannot be read any more, so it is asked anew. The nonce was used up just now.
        await drop_key(desk.server, ask, outcome)
        return await admit(desk.server, msgspec.structs.replace(ask, nonce=None))
    return outcome


async def _is_gone(desk: LiveDesk, known: Known, stream_id: str) -> bool:
    """Say whether a stream's log has ended its time, or its process died before its end."""
    try:
        record = await _record_of(desk, known, stream_id)
    except StreamUnknown:
        return True
    if record.end is not None or record.process == desk.mark.id:
        return False
    with redis_errors():
        return not await desk.server.exists(process_key(record.process))


async def _record_of(desk: LiveDesk, known: Known, stream_id: str) -> Record:
    """Return a stream's record. One that another process is about to begin is not there yet. Raises `StreamUnknown`."""
    begun_at = time.monotonic()
    while True:
        try:
            return await find_record(desk.server, stream_id, site=known.site)
        except StreamUnknown:
            # By the clock of the other machine, too, or by what has passed here: they may differ.
            if max(age_seconds(stream_id), time.monotonic() - begun_at) > PATIENCE_SECONDS:
                raise
        await asyncio.sleep(PEEK_SECONDS)


def idempotency_key(asked: Asked, wanted: Wanted) -> str | None:
    """Return what names this request for its caller: the same again is answered from the same call."""
    key = asked.headers.get("idempotency-key") or asked.headers.get("x-client-request-id") or wanted.request_id
    if key is None:
        return None
    if not IDEMPOTENCY_FORM.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key


def _own_key(known: Known, key: str | None) -> str | None:
    """Return a key as it is kept. Each narrow token has its own: who holds another reads none of its streams."""
    token_id = known.identity.token_id
    return key if key is None or token_id is None else f"{token_id}\n{key}"


def _hash(asked: Asked, wanted: Wanted) -> bytes:
    """Return what the same request has in common: its address, its dialect, which not all addresses say, its body."""
    return hashlib.sha256(b"\n".join((asked.path.encode(), wanted.wire.value.encode(), asked.body))).digest()


def _in_order(desk: LiveDesk, model: str, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the targets with a key in the order in which they will be called."""
    usable = with_key(model, order(targets, desk.chance))
    if len(usable) == 1:
        return (usable[0],)
    # One place each, so that nobody shuffles them again: the first one's account is opened with the admission.
    return tuple(replace(target, position=place) for place, target in enumerate(usable, 1))


def _ask(
    desk: LiveDesk,
    known: Known,
    asked: Asked,
    wanted: Wanted,
    targets: tuple[Target, ...],
    asker: Asker,
    allowed: SiteLimits,
    permitted: Permitted,
    stream_id: str,
) -> Ask:
    request = wanted.request
    answer_tokens = permitted.max_output_tokens
    if answer_tokens is None:
        answer_tokens = ANSWER_TOKENS * request.answers if isinstance(request, ChatRequest) else 0
    kind = LimitedKind.CHAT if isinstance(request, ChatRequest) else LimitedKind.EMBEDDINGS
    call = CallOpened(1, f"{asked.request_id}:1", targets[0], clock.now(), targets[0].tier_of(request))
    # Should this process be killed, its prompt is what is known of the call.
    account = to_open_account(asker, call, Usage(permitted.input_tokens))
    return Ask(
        site=known.site,
        request_id=asked.request_id,
        tokens=permitted.input_tokens + answer_tokens,
        windows=allowed.windows_for(kind, request.model),
        concurrency=allowed.concurrency,
        lease_seconds=settings.LIVE_LEASE_SECONDS,
        nonce=known.nonce,
        idempotency_key=_own_key(known, idempotency_key(asked, wanted)),
        body_hash=_hash(asked, wanted),
        stream_id=stream_id,
        cache_key=_cache_key(known, asked, wanted),
        process=desk.mark.id,
        open_account=to_entry(account),
    )


def _cache_key(known: Known, asked: Asked, wanted: Wanted) -> bytes | None:
    """Return under which key the answer would be kept; None where it is not looked for."""
    if wanted.streams or not may_cache(asked) or not isinstance(wanted.request, ChatRequest):
        return None
    # Who insists on a provider gets no other's answer.
    return cache.key_of(known.site, wanted.request, f"{wanted.wire.value}/{wanted.provider or ''}")


def may_cache(asked: Asked) -> bool:
    """Say whether answers are kept, and the caller has nothing against that."""
    directives = asked.headers.get("cache-control", "")
    return bool(settings.CACHE_SECONDS) and "no-store" not in directives and "no-cache" not in directives


async def _go_on_without(desk: LiveDesk, known: Known, error: RedisAway) -> None:
    """Let a request in that nobody counts, if the desk is set to; a signed one still only once."""
    metrics.without_redis.labels(settings.LIVE_WITHOUT_REDIS).inc()
    log.error("live_without_redis", answer=settings.LIVE_WITHOUT_REDIS, error=str(error))
    if settings.LIVE_WITHOUT_REDIS == "closed":
        raise NoFastMemory from error
    await use_up(desk, known)


def _refused(limited: Limited) -> LimitReached:
    window = limited.window
    metrics.refused.labels(window.unit).inc()
    if limited.never_fits:
        raise InvalidRequest(
            f"The request needs about {limited.needs} {window.unit}, and the limit is {window.limit} in "
            f"{window.seconds} s ({window.name}); ask for fewer.",
            "max_tokens",
        )
    return LimitReached(
        f"Rate limit reached for {window.unit} ({window.name}): {window.limit} in {window.seconds} s. "
        f"Try again in {limited.retry_after_seconds:.1f} s.",
        limited.retry_after_seconds,
    )


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)
