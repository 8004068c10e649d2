"""Listing jobs, with and without a batch, always by an index."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.errors import BatchNotFound
from jobs.models import Job
from jobs.read import WITHOUT_BATCH, JobFilter, list_jobs
from tenants.models import Site
from tests.factories import make_batch, make_job, make_site

pytestmark = pytest.mark.django_db


def found(site: Site, batch_id: str | None) -> list[Job]:
    return list_jobs(site, JobFilter(batch_id=batch_id), after=None, limit=10)


def test_jobs_are_listed_of_one_batch_or_without_batch_members(site: Site) -> None:
    batch, other = make_batch(site), make_batch(site)
    single = make_job(site)
    members = [make_job(site, batch=batch, custom_id=name) for name in ("a", "b")]
    make_job(site, batch=other, custom_id="a")

    assert found(site, batch.public_id) == members[::-1]
    assert found(site, WITHOUT_BATCH) == [single]
    assert len(found(site, None)) == 4


def test_a_batch_that_the_site_does_not_have_is_not_found(site: Site) -> None:
    foreign = make_batch(make_site("florist"))
    make_job(foreign.site, batch=foreign, custom_id="a")

    for batch_id in (foreign.public_id, "nonsense", ""):
        with pytest.raises(BatchNotFound):
            found(site, batch_id)


@pytest.mark.parametrize(("is_single", "index"), [(True, "single_jobs_of_a_site"), (False, "members_of_a_batch")])
def test_neither_list_is_read_from_all_jobs_of_the_site(site: Site, is_single: bool, index: str) -> None:
    batches = [make_batch(site) for _ in range(2)]
    make_job(site)
    for batch, size in zip(batches, (20, 1000), strict=True):
        Job.objects.bulk_create(
            Job(site=site, kind="chat", model="desk", request_hash=b"", batch=batch, custom_id=str(n))
            for n in range(size)
        )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE jobs_job; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")

    with CaptureQueriesContext(connection) as queries:
        found(site, WITHOUT_BATCH if is_single else batches[0].public_id)
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + queries.captured_queries[-1]["sql"])
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert f"using {index}" in plan, plan
