"""Public ids sort by time and are parsed back; any other text is rejected."""

import threading
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import InvalidId, from_public, new_uuid, to_public


def test_a_uuid_has_version_seven_and_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_uuid()

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_made_later_sort_later_also_as_text() -> None:
    made = [to_public("job", new_uuid()) for _ in range(10_000)]

    assert made == sorted(set(made))


def test_threads_never_create_the_same_id() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(new_uuid() for _ in range(2_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 8_000


@given(st.uuids())
def test_a_public_id_is_parsed_back(value: UUID) -> None:
    assert from_public("job", to_public("job", value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "job",
        "evt_00000000000000000000000000",
        "job_0000000000000000000000000",
        "job_000000000000000000000000000",
        "job_80000000000000000000000000",
        "job_0000000000000000000000000u",
        "JOB_00000000000000000000000000",
        "job_0000000000000000000000000A",
        "job_0000000000000000000000000\x00",
        "x" * 10_000,
    ],
)
def test_any_other_text_is_rejected(text: str) -> None:
    with pytest.raises(InvalidId):
        from_public("job", text)
