"""Admin pages of operators and their groups, in the theme of the other pages."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User

from core.admin_ui import theme

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, theme.ModelAdmin[User]):  # type: ignore[type-arg] # generic in the stubs only
    form = theme.UserChangeForm
    add_form = theme.UserCreationForm
    change_password_form = theme.AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, theme.ModelAdmin[Group]):
    """Groups and their permissions."""
