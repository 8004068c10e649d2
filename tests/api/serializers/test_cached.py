"""Shared serializer instances keep no state between calls."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from rest_framework.exceptions import ValidationError

from api.serializers.cached import deserialize
from api.serializers.jobs import JobIn
from tests.api.calling import job_body


def test_a_shared_serializer_keeps_no_data_between_calls() -> None:
    full = deserialize(JobIn, job_body(metadata={"post_id": "1"}, max_attempts=2))
    with pytest.raises(ValidationError) as refused:
        deserialize(JobIn, {"kind": "poem", "color": "red"})
    plain = deserialize(JobIn, job_body())

    assert full["metadata"] == {"post_id": "1"}
    assert set(refused.value.detail) == {"color"}
    assert set(plain) == {"kind", "body", "priority"}


def test_concurrent_threads_get_their_own_data() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: deserialize(JobIn, job_body(metadata={"n": str(n)})), range(200)))

    assert [each["metadata"]["n"] for each in found] == [str(n) for n in range(200)]
