"""What the list of jobs can be narrowed to. A name is given whole: a list of all would be read from every job."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from core import theme
from core.admin import PeriodFilter
from jobs.models import Job
from jobs.periods import created_before, created_since
from jobs.search import read_batch_id


class Created(PeriodFilter):
    def since(self, queryset: QuerySet[Job], begin: datetime) -> QuerySet[Job]:
        return created_since(queryset, begin)

    def until(self, queryset: QuerySet[Job], end: datetime) -> QuerySet[Job]:
        return created_before(queryset, end)


class Named(theme.TextFilter):
    """One column by its whole value."""

    column: str

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        value = self.value()
        return queryset.filter(**self.lookup(value.strip())) if value else queryset

    def lookup(self, value: str) -> dict[str, Any]:
        return {self.column: value}


class Model(Named):
    title = "model"
    parameter_name = column = "model"


class Queue(Named):
    title = "queue (default, batch)"
    parameter_name = column = "queue"


class Provider(Named):
    title = "provider"
    parameter_name = column = "provider"


class CustomId(Named):
    title = "custom_id"
    parameter_name = column = "custom_id"


class ErrorCode(Named):
    title = "error"
    parameter_name = "error"
    column = "error_code"


class Batch(Named):
    title = "batch (batch_…)"
    parameter_name = "batch"

    def lookup(self, value: str) -> dict[str, Any]:
        # A word that means no batch means no job.
        wanted = read_batch_id(value)
        return {"pk__in": []} if wanted is None else {"batch": wanted}
