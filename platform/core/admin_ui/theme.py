"""The admin theme, django-unfold, with the types that the package lacks. Every room imports the theme from here."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db.models import Model

M = TypeVar("M", bound=Model)
Parent = TypeVar("Parent", bound=Model)
ColumnMethod = TypeVar("ColumnMethod", bound=Callable[..., Any])

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite as ThemedSite
    from django.contrib.admin import FieldListFilter as BooleanFilter
    from django.contrib.admin import FieldListFilter as ChoiceFilter
    from django.contrib.admin import FieldListFilter as ChoicesFilter
    from django.contrib.admin import FieldListFilter as DateRangeFilter
    from django.contrib.admin import FieldListFilter as RelatedFilter
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.contrib.admin import SimpleListFilter as TextFilter
    from django.contrib.admin.views.main import ChangeList
    from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
    from django.forms import NumberInput, PasswordInput, Select, Textarea, TextInput

else:
    from unfold.admin import ModelAdmin as _ModelAdmin
    from unfold.admin import TabularInline as _TabularInline
    from unfold.contrib.filters.admin import AutocompleteSelectFilter as RelatedFilter
    from unfold.contrib.filters.admin import BooleanRadioFilter as BooleanFilter
    from unfold.contrib.filters.admin import ChoicesDropdownFilter as ChoiceFilter
    from unfold.contrib.filters.admin import MultipleChoicesDropdownFilter as ChoicesFilter
    from unfold.contrib.filters.admin import RangeDateFilter as DateRangeFilter
    from unfold.contrib.filters.admin import TextFilter
    from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
    from unfold.sites import UnfoldAdminSite as ThemedSite
    from unfold.views import ChangeList
    from unfold.widgets import UnfoldAdminDecimalFieldWidget as NumberInput
    from unfold.widgets import UnfoldAdminPasswordWidget as PasswordInput
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextareaWidget as Textarea
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput

    class ModelAdmin(_ModelAdmin, Generic[M]): ...

    class TabularInline(_TabularInline, Generic[M, Parent]): ...


__all__ = [
    "AdminPasswordChangeForm",
    "BooleanFilter",
    "ChangeList",
    "ChoiceFilter",
    "ChoicesFilter",
    "DateRangeFilter",
    "ModelAdmin",
    "NumberInput",
    "PasswordInput",
    "RelatedFilter",
    "Select",
    "TabularInline",
    "TextFilter",
    "Textarea",
    "TextInput",
    "ThemedSite",
    "UserChangeForm",
    "UserCreationForm",
    "badge_column",
]


def badge_column(description: str, colors: Mapping[Any, str]) -> Callable[[ColumnMethod], ColumnMethod]:
    """Decorator for a list column that returns (value, text): shows the text as a badge in the value's color.

    Colors are `info`, `success`, `warning`, `danger` and `primary`; gray for anything else.
    """

    def decorate(method: ColumnMethod) -> ColumnMethod:
        method.short_description = description  # type: ignore[attr-defined] # where Django looks for it
        method.label = _BadgeColors(colors)  # type: ignore[attr-defined] # where the theme looks for it
        return method

    return decorate


class _BadgeColors(dict[Any, str]):
    def __missing__(self, value: Any) -> str:
        # By default the theme shows the value instead of its text.
        return ""
