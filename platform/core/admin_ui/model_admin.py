"""Base classes of the admin: lists whose cost does not grow with their table, read-only rows, a filter by period."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.admin_ui import theme

M = TypeVar("M", bound=Model)

#: Shown where there is no value.
NO_VALUE = "–"
#: Rows are counted up to this number, and a list has no pages beyond it.
MAX_COUNT = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg] # generic in the stubs only
    """Counts up to MAX_COUNT, so that a list of ten million rows opens as fast as one of ten thousand."""

    template_name = "desk/pagination.html"

    @cached_property
    def count(self) -> int:
        return min(self._count_up_to_limit, MAX_COUNT)

    @cached_property
    def is_truncated(self) -> bool:
        """Whether the table has more rows than the pages show."""
        return self._count_up_to_limit > MAX_COUNT

    @cached_property
    def _count_up_to_limit(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        return rows.order_by().values("pk")[: MAX_COUNT + 1].count()


class BoundedChangeList(theme.ChangeList):
    """A list that shows the full count ("of 12") only while a filter or a search hides rows."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not (self.query or self.has_active_filters):
            self.full_result_count = self.result_count


class BoundedModelAdmin(theme.ModelAdmin[M]):
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_fullwidth = True
    list_filter_submit = True
    # An action on "all rows" would act on rows that the operator has not seen.
    list_disable_select_all = True

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[theme.ChangeList]:
        return BoundedChangeList

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Leave out filters by models that this user may not view: their choices would be empty."""
        return [each for each in super().get_list_filter(request) if self._may_filter_by(request, each)]

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:  # type: ignore[override] # Django 5.2
        try:
            return super().response_action(request, queryset)
        except ValidationError:
            self.message_user(request, "The selected rows are not on this list.", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    @admin.display(description="ID")
    def public_id(self, row: M) -> SafeString:
        """The row's public id, for models that have one."""
        return format_public_id(str(getattr(row, "public_id")))  # noqa: B009 (not every model has it)

    def _may_filter_by(self, request: HttpRequest, list_filter: Any) -> bool:
        if not isinstance(list_filter, tuple) or list_filter[1] is not theme.RelatedFilter:
            return True
        related = self.opts.get_field(list_filter[0]).related_model
        return related is not None and can_view(self.admin_site, request, related)


class ReadOnlyAdmin(BoundedModelAdmin[M]):
    """Rows that the system writes: operators view them and never edit them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False


class PeriodFilter(theme.DateRangeFilter):
    """Filter from one day to another, both included, in UTC. Text that is not a date is ignored."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        begin, end = self.period()
        if begin:
            queryset = self.since(queryset, begin)
        return self.until(queryset, end) if end else queryset

    def period(self) -> tuple[datetime | None, datetime | None]:
        """Return the start of the period, and the first moment after its end; None for an open end."""
        begin, last = (_to_midnight(self.used_parameters.get(f"{self.field_path}_{end}")) for end in ("from", "to"))
        return begin, last and last + timedelta(days=1)

    def since(self, queryset: QuerySet[Any], begin: datetime) -> QuerySet[Any]:
        return queryset.filter(**{f"{self.field_path}__gte": begin})

    def until(self, queryset: QuerySet[Any], end: datetime) -> QuerySet[Any]:
        return queryset.filter(**{f"{self.field_path}__lt": end})


def _to_midnight(text: object) -> datetime | None:
    try:
        # There is no day after 9999-12-31.
        day = datetime.strptime(str(text), "%Y-%m-%d")
        return day.replace(tzinfo=UTC) if 1900 < day.year < 9000 else None
    except ValueError:
        return None


def format_public_id(public_id: str) -> SafeString:
    """Return a public id in monospace, on one line."""
    return format_html('<span class="nd-id">{}</span>', public_id)


def can_view(site: admin.AdminSite, request: HttpRequest, model: type[Model]) -> bool:
    """Whether this user may view the model's rows in the admin."""
    return site.is_registered(model) and site.get_model_admin(model).has_view_permission(request)


def change_page_url(site: admin.AdminSite, request: HttpRequest, row: Model) -> str | None:
    """Return the URL of a row's page; None if this user may not view it, or it has no page."""
    if not can_view(site, request, type(row)):
        return None
    try:
        return reverse(f"{site.name}:{row._meta.app_label}_{row._meta.model_name}_change", args=(row.pk,))
    except NoReverseMatch:
        return None
