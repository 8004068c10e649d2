"""Rotation of the encryption key."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from core.crypto import UnknownEncryptionKey, key_id_of, new_key, parse_keyring
from jobs.models import Job
from nightdesk.management.commands.rotate_encryption_key import encrypted_fields
from tenants.credentials import create_site
from tenants.models import Credential
from tests.factories import make_file, make_job, make_provider
from webhooks.models import Endpoint, EndpointSecret, Event

OLD, NEW = f"old:{new_key()}", f"new:{new_key()}"


def rotate(**options: Any) -> dict[str, Any]:
    printed = io.StringIO()
    call_command("rotate_encryption_key", json=True, stdout=printed, stderr=io.StringIO(), **options)
    report: dict[str, Any] = json.loads(printed.getvalue())
    return report


@pytest.fixture
def sealed_with_the_old_key(db: None, settings: Settings) -> Settings:
    """One row of every model with an encrypted column."""
    settings.ENCRYPTION_KEYS = OLD
    site = create_site("Bakery").site
    make_job(site, payload=b"prompt", result=b"answer")
    make_job(site, payload=b"another")
    make_file(site, b"requests")
    make_provider(api_key=b"sk-vendor")
    endpoint = Endpoint.objects.create(site=site, url="https://bakery.test/hook")
    EndpointSecret.objects.create(endpoint=endpoint, secret=b"whsec_x")
    Event.objects.create(site=site, type="job.succeeded", payload=b"{}")
    settings.ENCRYPTION_KEYS = f"{NEW},{OLD}"
    return settings


def key_ids() -> set[str]:
    """The keys that the rows need, read from the raw columns."""
    found: set[str] = set()
    with connection.cursor() as cursor:
        for model, field in encrypted_fields():
            cursor.execute(f"SELECT {field.column} FROM {model._meta.db_table} WHERE {field.column} IS NOT NULL")  # noqa: S608
            found |= {key_id_of(bytes(row[0])) for row in cursor.fetchall()}
    return found


def test_all_encrypted_columns_are_found() -> None:
    assert {f"{model._meta.label}.{field.name}" for model, field in encrypted_fields()} == {
        "tenants.Credential.secret",
        "inference.ProviderAccount.api_key",
        "webhooks.EndpointSecret.secret",
        "webhooks.Event.payload",
        "jobs.Job.payload",
        "jobs.Job.result",
        "jobs.FileChunk.content",
    }


def test_after_the_rotation_the_old_key_is_not_needed(sealed_with_the_old_key: Settings) -> None:
    assert key_ids() == {"old"}

    report = rotate()

    assert (report["active_key"], report["reencrypted"]) == ("new", 8)
    assert key_ids() == {"new"}
    sealed_with_the_old_key.ENCRYPTION_KEYS = NEW
    assert {bytes(job.payload) for job in Job.objects.all()} == {b"prompt", b"another"}
    assert Job.objects.get(payload__isnull=False, result__isnull=False).result == b"answer"
    assert Credential.objects.get(kind="signing_secret").secret is not None


def test_rotating_twice_changes_nothing(sealed_with_the_old_key: Settings) -> None:
    rotate()

    assert rotate()["reencrypted"] == 0


def test_check_counts_values_and_changes_none(sealed_with_the_old_key: Settings) -> None:
    report = rotate(check=True)

    assert (sum(report["rows"].values()), report["reencrypted"]) == (8, 0)
    assert key_ids() == {"old"}


def test_without_the_old_key_the_rotation_says_which_one_is_missing(sealed_with_the_old_key: Settings) -> None:
    sealed_with_the_old_key.ENCRYPTION_KEYS = NEW

    with pytest.raises(UnknownEncryptionKey, match="'old'"):
        rotate()


def test_new_key_prints_the_value_for_decrypting_before_the_one_for_encrypting(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = OLD
    printed = io.StringIO()

    call_command("rotate_encryption_key", new_key="k2", stdout=printed, stderr=io.StringIO())

    known, used = (parse_keyring(line) for line in printed.getvalue().splitlines())
    assert (known.active, used.active) == ("old", "k2")
    assert known.keys == used.keys
    assert set(used.keys) == {"k2", "old"}


@pytest.mark.parametrize("name", ["old", "a b", "k" * 33])
def test_an_invalid_key_id_is_an_error(settings: Settings, name: str) -> None:
    settings.ENCRYPTION_KEYS = OLD

    with pytest.raises(CommandError):
        call_command("rotate_encryption_key", new_key=name, stdout=io.StringIO())
