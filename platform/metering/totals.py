"""Totals of a list of usage events, within a time limit."""

from dataclasses import dataclass

from django.db import OperationalError, connection, transaction
from django.db.models import Count, Q, QuerySet, Sum

from metering.models import UsageEvent

#: The totals are a convenience; the page of the list must not wait for them longer than this.
TOTALS_TIMEOUT_MS = 1500


@dataclass(frozen=True, slots=True)
class UsageTotals:
    calls: int
    billed_calls: int
    tokens_in: int
    tokens_out: int
    #: In pico-USD: of all calls, and of the billable ones.
    cost: int
    billed: int


def sum_usage(events: QuerySet[UsageEvent], timeout_ms: int = TOTALS_TIMEOUT_MS) -> UsageTotals | None:
    """Return the totals; None if there are too many events to sum within the limit."""
    is_billed = Q(billable=True)
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(timeout_ms)])
            found = events.order_by().aggregate(
                calls=Count("id"),
                billed_calls=Count("id", filter=is_billed),
                tokens_in=Sum("input_tokens", default=0),
                tokens_out=Sum("output_tokens", default=0),
                cost=Sum("cost_pico_usd", default=0),
                billed=Sum("cost_pico_usd", default=0, filter=is_billed),
            )
    except OperationalError:
        return None
    return UsageTotals(**{name: int(value) for name, value in found.items()})
