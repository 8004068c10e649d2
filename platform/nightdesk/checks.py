"""System checks: report settings that are missing, weak or contradictory, before a process serves requests."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from core.crypto import CryptoError, parse_keyring
from nightdesk.broker import SCHEMES, scheme_of
from webhooks.network_policy import webhook_network_policy

INSECURE_KEY = "insecure-development-key"
#: Id of the default encryption key in settings.py, for laptops.
INSECURE_KEY_ID = "dev"
MAX_DRAIN_SECONDS = 18
#: A ticket opens what was just started. For a longer lifetime, use a token.
MAX_TICKET_TTL_SECONDS = 3600


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return errors and warnings about the settings. Ids are stable; docs/reference/settings.md explains them."""
    return [*_common_checks(), *([] if settings.DEBUG else _production_checks())]


def require_valid_settings() -> None:
    """Raise `ImproperlyConfigured` with every error: a server starts without running Django's checks."""
    errors = [str(message.msg) for message in check_settings() if message.is_serious()]
    if errors:
        raise ImproperlyConfigured(" ".join(errors))


def _common_checks() -> Iterator[CheckMessage]:
    try:
        parse_keyring(settings.ENCRYPTION_KEYS)
    except CryptoError as error:
        yield Error(f"ENCRYPTION_KEYS is invalid: {error}", id="nightdesk.E001")
    try:
        webhook_network_policy()
    except ValueError as error:
        yield Error(f"WEBHOOK_ALLOWED_NETWORKS: {error}", id="nightdesk.E002")
    if urlsplit(settings.BASE_URL).scheme not in ("http", "https"):
        yield Error("BASE_URL must be an http or https URL.", id="nightdesk.E003")
    if bool(settings.AZURE_OPENAI_API_KEY) != bool(settings.AZURE_OPENAI_ENDPOINT):
        yield Error(
            "AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT belong together: set both or neither.", id="nightdesk.E004"
        )
    if settings.JOB_RETRY_CAP_SECONDS < settings.JOB_RETRY_BASE_SECONDS:
        yield Error("JOB_RETRY_CAP_SECONDS is smaller than JOB_RETRY_BASE_SECONDS.", id="nightdesk.E005")
    if settings.DEBUG and settings.BASE_URL.startswith("https://"):
        yield Error(
            "DEBUG is true and BASE_URL is https, which means production: set DEBUG=false.", id="nightdesk.E007"
        )
    if scheme_of(settings.CELERY_BROKER_URL) not in SCHEMES:
        yield Error(
            f"BROKER_URL must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}.",
            id="nightdesk.E008",
        )
    if settings.TICKET_TTL_SECONDS > MAX_TICKET_TTL_SECONDS:
        yield Error(f"TICKET_TTL_SECONDS must be at most {MAX_TICKET_TTL_SECONDS}.", id="nightdesk.E009")
    if settings.JOB_DRAIN_SECONDS > MAX_DRAIN_SECONDS:
        yield Error(
            f"JOB_DRAIN_SECONDS must be at most {MAX_DRAIN_SECONDS}: a worker must exit within 30 s of SIGTERM, and"
            " releasing the remaining jobs takes up to 10 s.",
            id="nightdesk.E006",
        )


def _production_checks() -> Iterator[CheckMessage]:
    if settings.SECRET_KEY == INSECURE_KEY or len(settings.SECRET_KEY) < 32:
        yield Error("SECRET_KEY must be set to 32 or more random characters.", id="nightdesk.E010")
    if settings.ENCRYPTION_KEYS.startswith(f"{INSECURE_KEY_ID}:"):
        yield Error(
            "ENCRYPTION_KEYS must be set: `k1:` and 32 random bytes in base64 (openssl rand -base64 32).",
            id="nightdesk.E011",
        )
    if not settings.BASE_URL.startswith("https://"):
        yield checks.Warning("BASE_URL is not https, so cookies are sent unencrypted.", id="nightdesk.W012")
    if settings.SIMULATOR_URL:
        yield checks.Warning("SIMULATOR_URL is set, so answers may come from the simulator.", id="nightdesk.W013")
    if settings.WEBHOOK_ALLOWED_NETWORKS:
        yield checks.Warning(
            "WEBHOOK_ALLOWED_NETWORKS lets sites' webhooks reach addresses inside your network.", id="nightdesk.W014"
        )
    if urlsplit(settings.BASE_URL).hostname not in settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS:
        yield Error("ALLOWED_HOSTS does not contain the host of BASE_URL.", id="nightdesk.E015")
