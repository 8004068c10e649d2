"""The egress policy of webhooks: which networks and ports a delivery may connect to (protection against SSRF)."""

from django.conf import settings

from core.ssrf_guard import EgressPolicy


def webhook_network_policy() -> EgressPolicy:
    """Return the policy of the settings. Raises `ValueError` if WEBHOOK_ALLOWED_NETWORKS has an invalid network."""
    return EgressPolicy.parse(settings.WEBHOOK_ALLOWED_NETWORKS, settings.WEBHOOK_ALLOWED_PORTS)
