"""Claims of due deliveries: each claim is a lease, during which no other courier claims the delivery."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """One attempt at a delivery, with all its data. (delivery, attempt) is the fencing token."""

    delivery_id: UUID
    #: Counted from 1.
    attempt: int
    site_id: UUID
    endpoint_id: UUID
    event_id: UUID
    url: str = field(repr=False)
    #: False if the endpoint was disabled after the event was recorded.
    is_enabled: bool
    claimed_at: datetime
    sealed_payload: bytes = field(repr=False)
    #: Encrypted; those that have not expired, newest first.
    sealed_secrets: Sequence[bytes] = field(repr=False)


# The time is read once, in a subquery: clock_timestamp() may change from row to row, so Postgres would not use the
# index on due_at for a comparison with it. The lease is the same column, moved beyond the attempt's deadline.
CLAIM = """
WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS now),
due AS (
    SELECT id FROM webhooks_delivery
    WHERE state = 'pending' AND due_at <= (SELECT now FROM moment)
    ORDER BY due_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE webhooks_delivery AS delivery
    SET attempts = attempts + 1, due_at = clock_timestamp() + make_interval(secs => %(lease)s)
    FROM due WHERE delivery.id = due.id
    RETURNING delivery.id, delivery.attempts, delivery.site_id, delivery.endpoint_id, delivery.event_id
)
SELECT claimed.id, claimed.attempts, claimed.site_id, claimed.endpoint_id, claimed.event_id,
    endpoint.url, endpoint.is_enabled, clock_timestamp(), event.payload,
    ARRAY(
        SELECT secret FROM webhooks_endpointsecret
        WHERE endpoint_id = claimed.endpoint_id AND (expires_at IS NULL OR expires_at > clock_timestamp())
        ORDER BY id DESC
    )
FROM claimed
JOIN webhooks_endpoint AS endpoint ON endpoint.id = claimed.endpoint_id
JOIN webhooks_event AS event ON event.id = claimed.event_id
"""


def claim_due(limit: int, lease: timedelta) -> list[ClaimedDelivery]:
    """Start an attempt at up to `limit` due deliveries, the longest overdue first.

    The attempt is stored nowhere else: if this process dies, the delivery is due again when the lease expires.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"limit": limit, "lease": lease.total_seconds()})
        return [ClaimedDelivery(*row) for row in cursor.fetchall()]
