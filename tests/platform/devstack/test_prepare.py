import json

import pytest
from pytest_django import Settings

from devstack.card import parse_seeded
from devstack.prepare import main
from tenants.models import Site
from webhooks.models import Endpoint


@pytest.fixture
def laptop(settings: Settings) -> Settings:
    """Development settings; other tests run with those of production."""
    settings.DEBUG = True
    return settings


@pytest.mark.django_db
@pytest.mark.usefixtures("laptop")
def test_prepare_prints_only_the_demo_site_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--receiver-url", "http://127.0.0.1:9000/"]) == 0

    printed = capsys.readouterr()
    assert parse_seeded(printed.out).site_slug == Site.objects.get().slug
    assert json.loads(printed.out)
    assert "Running migrations" in printed.err
    assert Endpoint.objects.get().url == "http://127.0.0.1:9000/"


def test_prepare_reports_invalid_settings_before_it_changes_anything(
    laptop: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    laptop.ENCRYPTION_KEYS = "no key"

    assert main([]) == 1

    printed = capsys.readouterr()
    assert "ENCRYPTION_KEYS" in printed.err
    assert printed.out == ""
