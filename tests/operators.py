"""Operators who are signed in to the admin."""

import re
from html import unescape

from django.contrib.auth.models import Permission, User
from django.test import Client


def sign_in(*permissions: str, name: str = "ada", csrf: bool = False) -> Client:
    """Return the browser of an operator with these permissions (`jobs.view_job`); with none given, with all."""
    operator = User.objects.create_user(name, password="a long password", is_staff=True, is_superuser=not permissions)
    for permission in permissions:
        app, codename = permission.split(".")
        operator.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    browser = Client(enforce_csrf_checks=csrf, REMOTE_ADDR="192.0.2.7")
    browser.force_login(operator)
    return browser


def words(html: str) -> str:
    """Return the text of a page in one line, without tags, scripts and styles."""
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", html)
    return re.sub(r"\s+", " ", unescape(text))
