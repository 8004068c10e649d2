"""Totals of usage events, within a time limit."""

import pytest
from django.db.models import CharField, Func

from core.ids import new_uuid
from metering.models import UsageEvent
from metering.totals import sum_usage
from tenants.models import Site

pytestmark = pytest.mark.django_db

SLOW = Func(function="pg_sleep", template="%(function)s(5)::text", output_field=CharField())


def make_call(site: Site, **fields: int | bool) -> None:
    UsageEvent.objects.create(dedupe_key=str(new_uuid()), site=site, call=1, outcome="ok", **fields)


def test_an_empty_list_totals_zero() -> None:
    found = sum_usage(UsageEvent.objects.all())

    assert found is not None
    assert (found.calls, found.tokens_in, found.cost, found.billed) == (0, 0, 0, 0)


def test_totals_are_exact_beyond_the_precision_of_a_float(site: Site) -> None:
    make_call(site, cost_pico_usd=2**60 + 1, input_tokens=2, billable=True)
    make_call(site, cost_pico_usd=2**60, output_tokens=3)

    found = sum_usage(UsageEvent.objects.all())

    assert found is not None
    assert (found.calls, found.billed_calls, found.tokens_in, found.tokens_out) == (2, 1, 2, 3)
    assert (found.cost, found.billed) == (2**61 + 1, 2**60 + 1)


def test_totals_over_the_time_limit_are_none_and_leave_the_connection_usable(site: Site) -> None:
    make_call(site)

    assert sum_usage(UsageEvent.objects.annotate(slept=SLOW).filter(slept=""), timeout_ms=50) is None
    assert sum_usage(UsageEvent.objects.all()) is not None
