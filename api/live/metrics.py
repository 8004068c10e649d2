"""`GET /metrics`: what this process counts, for Prometheus."""

import hmac

from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.errors import ResourceNotFound
from api.live.answer import Course, send_body
from api.live.asked import Asked
from api.live.consumer import Reply
from api.live.infer import answered

LOOPBACK = ("127.0.0.1", "::1")


async def tell_metrics(asked: Asked, reply: Reply) -> None:
    """Answer whoever may know; to others there is nothing here."""
    await answered(Course(asked, "metrics"), reply, _tell)


async def _tell(course: Course, reply: Reply) -> None:
    if not _may_know(course.asked):
        raise ResourceNotFound("There is nothing at this address.")
    await send_body(course, reply, generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _may_know(asked: Asked) -> bool:
    """Who shows the token may; without one, programs on the same machine that no proxy stands before."""
    if settings.METRICS_TOKEN:
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode())
    return asked.address in LOOPBACK and "x-forwarded-for" not in asked.headers
