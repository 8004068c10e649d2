"""The project itself, as an app: it brings management commands and system checks."""

from django.apps import AppConfig
from django.core.checks import register

from nightdesk.checks import check_settings


class NightdeskConfig(AppConfig):
    name = "nightdesk"

    def ready(self) -> None:
        register(check_settings)
