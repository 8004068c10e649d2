"""`GET /metrics`: what this process counts, for Prometheus."""

import hmac
from collections import Counter
from contextlib import suppress

from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.errors import ResourceNotFound
from api.live.answer import Course, send_body
from api.live.asked import Asked
from api.live.desk import LiveDesk, live_desk
from api.live.infer import answered
from api.live.request import Reply
from core import metrics
from core.redis import RedisAway
from metering import buffer

LOOPBACK = ("127.0.0.1", "::1")


async def tell_metrics(asked: Asked, reply: Reply) -> None:
    """Answer whoever may know; to others there is nothing here."""
    await answered(Course(asked, "metrics"), reply, _tell)


async def _tell(course: Course, reply: Reply) -> None:
    if not _may_know(course.asked):
        raise ResourceNotFound("There is nothing at this address.")
    with suppress(RedisAway):
        await _look(await live_desk())
    await send_body(course, reply, generate_latest(), content_type=CONTENT_TYPE_LATEST)


async def _look(desk: LiveDesk) -> None:
    """Read what all processes share. Without Redis the last figures stand, and the counters tell of it."""
    backlog = await buffer.waiting(desk.server)
    metrics.accounts_behind.set(backlog.behind)
    metrics.accounts_aside.set(backlog.aside)
    resting = Counter((state.provider, state.condition.value) for state in await desk.breakers.states())
    metrics.providers_resting.clear()
    for labels, keys in resting.items():
        metrics.providers_resting.labels(*labels).set(keys)


def _may_know(asked: Asked) -> bool:
    """Who shows the token may; without one, programs on the same machine that no proxy stands before."""
    if settings.METRICS_TOKEN:
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode())
    return asked.address in LOOPBACK and "x-forwarded-for" not in asked.headers
