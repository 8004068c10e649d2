"""Seeding of the demo site, which is idempotent."""

from dataclasses import asdict

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from devstack.card import SeededSite
from devstack.demo_site import seed
from inference import routing
from tenants.models import Credential, Site
from webhooks.models import Endpoint


@pytest.fixture
def demo(db: None, settings: Settings) -> SeededSite:
    settings.SIMULATOR_URL = "http://127.0.0.1:9000"
    return seed("http://127.0.0.1:9001/")


def test_the_route_fails_over_from_one_dialect_to_the_other(demo: SeededSite) -> None:
    targets = routing.load_routing().targets_for("nightdesk-demo")

    assert [(target.provider.name, target.provider.dialect) for target in targets] == [
        ("sim-openai", "openai"),
        ("sim-anthropic", "anthropic"),
    ]


def test_the_administrator_can_log_in(demo: SeededSite) -> None:
    user = User.objects.get(username=demo.admin_user)

    assert user.is_superuser
    assert user.check_password(demo.admin_password)


def test_seeding_again_changes_nothing_but_the_receiver_s_address(demo: SeededSite) -> None:
    again = seed("http://127.0.0.1:9002/")

    assert again == demo
    assert (Site.objects.count(), Credential.objects.count()) == (1, 2)
    endpoint = Endpoint.objects.get()
    assert endpoint.url == "http://127.0.0.1:9002/"
    assert endpoint.secrets.count() == 1


def test_another_secret_key_seeds_other_secrets(demo: SeededSite, settings: Settings) -> None:
    settings.SECRET_KEY = "another desk's key"
    other = asdict(seed(None))

    same = {name for name, value in asdict(demo).items() if other[name] == value}
    assert same == {"site_id", "site_slug", "admin_user"}
