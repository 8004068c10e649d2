"""Management commands for sites and credentials."""

import json
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from core.ids import to_public
from tenants.credentials import API_KEY_PATTERN, create_site, live_credentials
from tenants.models import AuditEntry, CredentialKind, Site

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


def test_create_site_shows_everything_that_is_needed_to_connect() -> None:
    shown = run_json("create_site", "Corner Bakery")

    site = Site.objects.get()
    assert shown["site_id"] == site.public_id
    assert (shown["site_slug"], shown["site_name"]) == ("corner-bakery", "Corner Bakery")
    assert API_KEY_PATTERN.fullmatch(shown["api_key"])
    assert (
        shown["site_secret"]
        == bytes(live_credentials(site, CredentialKind.SIGNING_SECRET).get().secret or b"").decode()
    )


def test_create_site_stores_allowed_origins() -> None:
    run("create_site", "Bakery", "--origin", "https://Bakery.example:443/", "--origin", "http://127.0.0.1:8123")

    assert Site.objects.get().origins == ["https://bakery.example", "http://127.0.0.1:8123"]


def test_create_site_rejects_an_invalid_origin() -> None:
    with pytest.raises(CommandError, match="Not an origin"):
        run("create_site", "Bakery", "--origin", "bakery.example")


def test_create_site_prints_a_readable_card() -> None:
    card = run("create_site", "Corner Bakery", "--slug", "bakery")

    assert "slug       bakery\n" in card
    assert "are not shown again" in card


def test_create_site_reports_invalid_arguments() -> None:
    create_site("Bakery", "bakery")

    with pytest.raises(CommandError, match="site with the slug 'bakery' already"):
        run("create_site", "Another", "--slug", "bakery")
    with pytest.raises(CommandError, match="printable"):
        run("create_site", " ")


@pytest.mark.parametrize(("word", "kind"), [("secret", CredentialKind.SIGNING_SECRET), ("key", CredentialKind.API_KEY)])
def test_rotate_credential_issues_a_second_live_credential(word: str, kind: CredentialKind) -> None:
    made = create_site("Bakery", "bakery")

    shown = run_json("rotate_credential", "bakery", word)

    assert shown["kind"] == kind
    assert shown["secret"].startswith("nd_")
    assert live_credentials(made.site, kind).count() == 2
    assert AuditEntry.objects.latest("id").action == f"{kind}.rotate"


def test_rotate_credential_accepts_a_site_id_and_zero_overlap() -> None:
    made = create_site("Bakery", "bakery")

    card = run("rotate_credential", made.site.public_id, "key", "--overlap-hours", "0")

    assert live_credentials(made.site, CredentialKind.API_KEY).count() == 1
    assert "for 0 more hours" in card


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["florist", "key"], "no site 'florist'"),
        (["bakery", "password"], "invalid choice"),
        (["bakery", "key", "--overlap-hours", "-1"], "between 0 and 8760"),
        (["bakery", "key", "--overlap-hours", "nan"], "between 0 and 8760"),
        (["bakery", "key", "--overlap-hours", "long"], "invalid"),
    ],
)
def test_rotate_credential_reports_invalid_arguments(arguments: list[str], words: str) -> None:
    create_site("Bakery", "bakery")

    with pytest.raises(CommandError, match=words):
        run("rotate_credential", *arguments)


def test_rotate_credential_reports_too_many_live_credentials() -> None:
    create_site("Bakery", "bakery")
    for _ in range(3):
        run("rotate_credential", "bakery", "key")

    with pytest.raises(CommandError, match="Revoke one"):
        run("rotate_credential", "bakery", "key")


def test_revoke_credential_is_idempotent() -> None:
    made = create_site("Bakery", "bakery")
    key_id = made.api_key.credential.public_id

    assert run_json("revoke_credential", key_id) == {"credential_id": key_id, "revoked_now": True}
    assert run_json("revoke_credential", key_id) == {"credential_id": key_id, "revoked_now": False}
    assert run("revoke_credential", key_id) == f"{key_id} was already revoked.\n"

    assert not live_credentials(made.site, CredentialKind.API_KEY).exists()


@pytest.mark.parametrize("wanted", ["nonsense", "key_nonsense", to_public("key", UUID(int=1))])
def test_revoke_credential_reports_an_unknown_credential(wanted: str) -> None:
    with pytest.raises(CommandError, match="no credential"):
        run("revoke_credential", wanted)
