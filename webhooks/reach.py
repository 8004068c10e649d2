"""Which addresses webhooks may reach, as the settings say."""

from django.conf import settings

from core.guarded_http import Reach


def webhook_reach() -> Reach:
    """Return it. Raises `ValueError` if WEBHOOK_ALLOWED_NETWORKS names something that is not a network."""
    return Reach.of(settings.WEBHOOK_ALLOWED_NETWORKS, settings.WEBHOOK_ALLOWED_PORTS)
