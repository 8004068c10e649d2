"""Rows that a test commits are deleted after it, except Django's own."""

import pytest
from django.contrib.auth.models import User
from django.db import connection

from jobs.models import Job
from tenants.models import AuditEntry, Site
from tests.factories import make_batch, make_job, make_site
from tests.operators import sign_in
from tests.tables import empty_tables

pytestmark = pytest.mark.django_db(transaction=True)


def test_rows_go_whatever_points_at_them_and_the_audit_log_too() -> None:
    site = make_site()
    make_job(site, batch=make_batch(site), retry_of=make_job(site))
    AuditEntry.objects.create(actor="ada", action="tests", subject="bakery", site=site)

    empty_tables()

    assert not any(model.objects.exists() for model in (Site, Job, AuditEntry))


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_begins_without_operators_and_with_their_permissions(time: str) -> None:
    assert not User.objects.exists()

    assert sign_in("jobs.view_job").get("/admin/jobs/job/").status_code == 200


def test_constraints_hold_afterwards() -> None:
    empty_tables()

    with connection.cursor() as cursor:
        cursor.execute("SHOW session_replication_role")
        assert cursor.fetchone() == ("origin",)
