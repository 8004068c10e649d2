"""Columns that several lists share."""

from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.humanize import format_age, format_moment


def age_column(of: datetime, now: datetime) -> SafeString:
    """Show how old something is, and its moment to who points at it."""
    return format_html('<span class="nd-short" title="{}">{}</span>', format_moment(of), format_age(of, now))
