"""The admin as an app: it tells Django which admin site is ours."""

from django.contrib.admin.apps import AdminConfig


class NightdeskAdminConfig(AdminConfig):
    default_site = "nightdesk.admin.site.NightdeskAdminSite"
