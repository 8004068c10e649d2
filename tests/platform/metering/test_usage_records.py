"""Usage records are written as usage events, completely and idempotently."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from core.ids import new_uuid
from metering import usage_records
from metering.models import UsageEvent, UsageOutcome
from metering.usage_records import COLUMNS_SET_ON_CLOSE, MAX_COUNT, UsageRecord, UsageRow, to_usage_row
from providers.tiers import Tier
from providers.types import Usage
from tenants.models import Site

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened(site: Site) -> UsageRecord:
    return UsageRecord(
        dedupe_key="job_x:1:1",
        site_id=site.id,
        job_id=new_uuid(),
        attempt=1,
        call=2,
        request_id='quote " and snowman \u2603',
        provider="openai",
        price_list="openai",
        model="chat",
        upstream_model="gpt-4o-mini",
        started_at=datetime(2026, 11, 20, 8, 30, 15, 123456, tzinfo=UTC),
    )


@pytest.fixture
def closed(opened: UsageRecord) -> UsageRecord:
    return replace(
        opened,
        outcome=UsageOutcome.ERROR,
        usage=Usage(11, 12, 3, 4, 5, 6),
        estimated=True,
        billable=True,
        error_kind="overloaded",
        error_code="slow_down",
        http_status=503,
        duration_ms=7,
        first_token_ms=8,
        tier=Tier.FLEX,
    )


def test_every_column_has_a_field_in_usage_row() -> None:
    columns = {field.column for field in UsageEvent._meta.concrete_fields} - {"id"}

    assert set(UsageRow.__struct_fields__) == columns


def test_a_written_record_is_read_back_unchanged(closed: UsageRecord) -> None:
    usage_records.write([closed])

    event = UsageEvent.objects.get()
    assert {name: getattr(event, name) for name in UsageRow.__struct_fields__} == {
        name: getattr(to_usage_row(closed), name) for name in UsageRow.__struct_fields__
    }


def test_the_end_of_a_call_completes_the_row_of_its_start(opened: UsageRecord, closed: UsageRecord) -> None:
    usage_records.write([opened])
    usage_records.write([closed])

    event = UsageEvent.objects.get()
    assert [getattr(event, name) for name in COLUMNS_SET_ON_CLOSE] == [
        getattr(to_usage_row(closed), name) for name in COLUMNS_SET_ON_CLOSE
    ]


def test_the_end_of_a_call_does_not_change_its_provider_and_request(opened: UsageRecord, closed: UsageRecord) -> None:
    usage_records.write([opened])
    usage_records.write([replace(closed, provider="another", request_id="another")])

    assert UsageEvent.objects.values_list("provider", "request_id").get() == (opened.provider, opened.request_id)


def test_writing_no_records_executes_no_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        usage_records.write([])


@pytest.mark.parametrize(("reported", "stored"), [(-1, 0), (MAX_COUNT + 1, MAX_COUNT)])
def test_a_count_beyond_the_range_of_its_column_is_clamped(closed: UsageRecord, reported: int, stored: int) -> None:
    usage_records.write([replace(closed, usage=Usage(output_tokens=reported))])

    assert UsageEvent.objects.get().output_tokens == stored
