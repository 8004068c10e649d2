"""Filters of the list of jobs. They match exact values: a list of choices would require reading every job."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from core.admin_ui import theme
from core.admin_ui.model_admin import PeriodFilter
from jobs.batches.read import parse_batch_id
from jobs.models import Job
from jobs.periods import created_before, created_since


class CreatedFilter(PeriodFilter):
    def since(self, queryset: QuerySet[Job], begin: datetime) -> QuerySet[Job]:
        return created_since(queryset, begin)

    def until(self, queryset: QuerySet[Job], end: datetime) -> QuerySet[Job]:
        return created_before(queryset, end)


class ExactFilter(theme.TextFilter):
    """One column by its exact value."""

    column: str

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        value = self.value()
        return queryset.filter(**self.lookup(value.strip())) if value else queryset

    def lookup(self, value: str) -> dict[str, Any]:
        return {self.column: value}


class ModelFilter(ExactFilter):
    title = "model"
    parameter_name = column = "model"


class QueueFilter(ExactFilter):
    title = "queue (default or batch)"
    parameter_name = column = "queue"


class ProviderNameFilter(ExactFilter):
    title = "provider"
    parameter_name = column = "provider"


class CustomIdFilter(ExactFilter):
    title = "custom_id"
    parameter_name = column = "custom_id"


class ErrorCodeFilter(ExactFilter):
    title = "error code"
    parameter_name = "error"
    column = "error_code"


class BatchFilter(ExactFilter):
    title = "batch ID (batch_…)"
    parameter_name = "batch"

    def lookup(self, value: str) -> dict[str, Any]:
        # Text that is not a batch id matches no job.
        batch_id = parse_batch_id(value)
        return {"pk__in": []} if batch_id is None else {"batch": batch_id}
