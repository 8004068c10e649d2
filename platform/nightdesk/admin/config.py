"""The app config of the admin: replaces Django's default admin site, and registers operators and groups."""

from importlib import import_module

from django.contrib.admin.apps import AdminConfig


class NightdeskAdminConfig(AdminConfig):
    default_site = "nightdesk.admin.site.NightdeskAdminSite"

    def ready(self) -> None:
        super().ready()
        # Autodiscovery finds `<app>.admin` only, and must first have registered Django's own admin of users.
        import_module("nightdesk.admin.users")
