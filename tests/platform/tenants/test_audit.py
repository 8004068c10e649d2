"""The audit log."""

import pytest
from django.db import Error, transaction

from tenants.audit import COMMAND_LINE, Actor, audit
from tenants.models import AuditEntry, Site

pytestmark = pytest.mark.django_db


def test_an_entry_has_actor_action_and_subject(site: Site) -> None:
    audit(Actor("ada", "2001:db8::1"), "site.change", site.public_id, site, {"name": ["A", "B"]})

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "site.change", site.public_id)
    assert (entry.site, entry.details, entry.address) == (site, {"name": ["A", "B"]}, "2001:db8::1")
    assert entry.at is not None


def test_a_command_has_no_address(site: Site) -> None:
    audit(COMMAND_LINE, "encryption_key.rotate", "b")

    assert AuditEntry.objects.get().address is None


def test_long_names_are_truncated() -> None:
    audit(Actor("a" * 500), "x", "s" * 500)

    assert len(AuditEntry.objects.get().subject) == 100


def test_the_audit_log_is_append_only(site: Site) -> None:
    audit(COMMAND_LINE, "site.change", site.public_id, site)

    for change in (lambda: AuditEntry.objects.update(actor="nobody"), lambda: AuditEntry.objects.all().delete()):
        with pytest.raises(Error, match="append-only"), transaction.atomic():
            change()
