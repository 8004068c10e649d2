"""The project as an app, for its management commands, system checks and templates."""

from django.apps import AppConfig
from django.core.checks import register

from nightdesk.checks import check_settings


class NightdeskConfig(AppConfig):
    name = "nightdesk"

    def ready(self) -> None:
        register(check_settings)
