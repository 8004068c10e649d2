"""The project itself, as an app: it brings management commands and system checks."""

from django.apps import AppConfig


class NightdeskConfig(AppConfig):
    name = "nightdesk"
