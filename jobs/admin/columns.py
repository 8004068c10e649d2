"""List columns that several pages share."""

from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.humanize import format_age, format_moment


def age_column(at: datetime, now: datetime) -> SafeString:
    """Show the age of something, with its time as the tooltip."""
    return format_html('<span class="nd-short" title="{}">{}</span>', format_moment(at), format_age(at, now))
