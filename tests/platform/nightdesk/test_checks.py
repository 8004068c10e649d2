"""System checks of settings."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from nightdesk.checks import INSECURE_KEY, check_settings, require_valid_settings

DEV_KEYS = "dev:aW5zZWN1cmUtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU="
PRODUCTION = {
    "DEBUG": False,
    "SECRET_KEY": "x" * 32,
    "ENCRYPTION_KEYS": "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "BASE_URL": "https://desk.example",
    "ALLOWED_HOSTS": ["desk.example"],
    "SIMULATOR_URL": "",
    "WEBHOOK_ALLOWED_NETWORKS": [],
}


@pytest.fixture
def production(settings: Settings) -> Settings:
    for name, value in PRODUCTION.items():
        setattr(settings, name, value)
    return settings


def test_valid_settings_have_no_errors(production: Settings) -> None:
    assert check_settings() == []


@pytest.mark.parametrize(
    ("name", "value", "message_id"),
    [
        ("ENCRYPTION_KEYS", "", "nightdesk.E001"),
        ("ENCRYPTION_KEYS", "k1:AAAA", "nightdesk.E001"),
        ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.1/8"], "nightdesk.E002"),
        ("BASE_URL", "desk.example", "nightdesk.E003"),
        ("AZURE_OPENAI_API_KEY", "key", "nightdesk.E004"),
        ("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com", "nightdesk.E004"),
        ("JOB_RETRY_CAP_SECONDS", -1, "nightdesk.E005"),
        ("JOB_DRAIN_SECONDS", 19, "nightdesk.E006"),
        ("TICKET_TTL_SECONDS", 3601, "nightdesk.E009"),
        ("SECRET_KEY", INSECURE_KEY, "nightdesk.E010"),
        ("SECRET_KEY", "short", "nightdesk.E010"),
        ("ENCRYPTION_KEYS", DEV_KEYS, "nightdesk.E011"),
        ("BASE_URL", "http://desk.example", "nightdesk.W012"),
        ("SIMULATOR_URL", "http://127.0.0.1:9000", "nightdesk.W013"),
        ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.0/8"], "nightdesk.W014"),
        ("ALLOWED_HOSTS", ["other.example"], "nightdesk.E015"),
    ],
)
def test_an_invalid_setting_is_reported_by_name(production: Settings, name: str, value: Any, message_id: str) -> None:
    setattr(production, name, value)

    found = [message for message in check_settings() if message.id == message_id]

    assert len(found) == 1
    assert name.partition("_")[0] in found[0].msg


@pytest.mark.parametrize("url", ["sqs://", "sentinel://127.0.0.1", "127.0.0.1:5672", "rabbit"])
def test_an_unknown_broker_scheme_is_an_error(production: Settings, url: str) -> None:
    production.CELERY_BROKER_URL = url

    (found,) = check_settings()

    assert found.id == "nightdesk.E008"
    assert found.msg == "BROKER_URL must begin with redis://, rediss://, amqp://, amqps://."


def test_a_server_does_not_start_with_an_error(production: Settings) -> None:
    require_valid_settings()
    production.SECRET_KEY = "short"

    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        require_valid_settings()


def test_debug_with_an_https_base_url_is_an_error(production: Settings) -> None:
    production.DEBUG = True

    assert [message.id for message in check_settings()] == ["nightdesk.E007"]


def test_debug_allows_the_development_defaults(production: Settings) -> None:
    production.DEBUG = True
    production.SECRET_KEY, production.ENCRYPTION_KEYS, production.BASE_URL = INSECURE_KEY, DEV_KEYS, "http://localhost"

    assert check_settings() == []
