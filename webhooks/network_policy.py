"""Which addresses webhooks may reach, as the settings say."""

from django.conf import settings

from core.ssrf_guard import EgressPolicy


def webhook_network_policy() -> EgressPolicy:
    """Return it. Raises `ValueError` if WEBHOOK_ALLOWED_NETWORKS names something that is not a network."""
    return EgressPolicy.parse(settings.WEBHOOK_ALLOWED_NETWORKS, settings.WEBHOOK_ALLOWED_PORTS)
