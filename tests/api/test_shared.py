"""A serializer that all requests share keeps nothing of any."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from rest_framework.exceptions import ValidationError

from api.serializers.cached import deserialize
from api.serializers.jobs import JobIn
from tests.api.calling import job_body


def test_the_next_caller_sees_nothing_of_the_one_before() -> None:
    full = deserialize(JobIn, job_body(metadata={"post_id": "1"}, max_attempts=2))
    with pytest.raises(ValidationError) as refused:
        deserialize(JobIn, {"kind": "poem", "color": "red"})
    plain = deserialize(JobIn, job_body())

    assert full["metadata"] == {"post_id": "1"}
    assert set(refused.value.detail) == {"color"}
    assert set(plain) == {"kind", "body", "priority"}


def test_threads_that_read_at_once_each_get_their_own() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: deserialize(JobIn, job_body(metadata={"n": str(n)})), range(200)))

    assert [each["metadata"]["n"] for each in found] == [str(n) for n in range(200)]
