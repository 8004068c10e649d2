"""The slot pool: tables of what it decides, without a database or an event loop."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from jobs.worker.leases import HeldJob
from jobs.worker.outcomes import AttemptCanceled, AttemptReleased
from jobs.worker.slot_pool import JobSlot, SlotPhase, SlotPool

PENDING, STARTING, CALLING, FINISHING = SlotPhase
NOW = 1_000.0


def pool_of(*phases: SlotPhase, slots: int = 10, max_starting: int = 64) -> SlotPool[JobSlot]:
    pool: SlotPool[JobSlot] = SlotPool(slots, max_starting=max_starting, now=NOW)
    for number, phase in enumerate(phases):
        pool.add(JobSlot(job_id=UUID(int=number), phase=phase))
    return pool


def held(number: int, *, attempt: int = 1, is_cancel_requested: bool = False) -> HeldJob:
    return HeldJob(UUID(int=number), attempt, is_cancel_requested)


@pytest.mark.parametrize(
    ("phases", "slots", "max_starting", "free"),
    [
        ([], 10, 64, 10),
        ([CALLING] * 4, 10, 64, 6),
        ([CALLING] * 10, 10, 64, 0),
        # A slot is free again while its outcome is being written, …
        ([CALLING] * 9 + [FINISHING], 10, 64, 1),
        ([FINISHING] * 10, 10, 64, 10),
        # … until as many outcomes wait as there are slots.
        ([CALLING] * 5 + [FINISHING] * 12, 10, 64, 3),
        ([FINISHING] * 20, 10, 64, 0),
        # Only so many may be between their claim and their first call.
        ([PENDING] * 3 + [STARTING] * 4, 100, 8, 1),
        ([PENDING] * 3 + [STARTING] * 5, 100, 8, 0),
        # The ramp opens only `max_starting` slots at first.
        ([CALLING] * 8, 100, 8, 0),
    ],
)
def test_free_slots(phases: Sequence[SlotPhase], slots: int, max_starting: int, free: int) -> None:
    assert pool_of(*phases, slots=slots, max_starting=max_starting).free(NOW) == free


def test_the_ramp_opens_more_slots_while_all_open_ones_are_taken() -> None:
    pool = pool_of(*[CALLING] * 8, slots=100, max_starting=8)

    assert [pool.free(NOW + 0.2 * step) for step in range(3)] == [0, 8, 8]


@pytest.mark.parametrize(
    ("phase", "must_cancel", "is_stopped"),
    [(PENDING, False, True), (STARTING, True, True), (CALLING, True, True), (FINISHING, False, False)],
)
def test_stopping_cancels_a_task_that_has_started_and_never_one_that_writes_its_outcome(
    phase: SlotPhase, must_cancel: bool, is_stopped: bool
) -> None:
    slot = JobSlot(job_id=UUID(int=1), phase=phase)

    assert slot.stop(AttemptCanceled()) is must_cancel
    assert (slot.stop_outcome == AttemptCanceled()) is is_stopped


def test_the_first_reason_to_stop_wins() -> None:
    slot = JobSlot(job_id=UUID(int=1), phase=CALLING)

    assert [slot.stop(AttemptCanceled()), slot.stop(AttemptReleased())] == [True, False]
    assert slot.stop_outcome == AttemptCanceled()


def test_a_slot_is_not_freed_by_an_older_attempt_of_the_same_job() -> None:
    pool, older = pool_of(), JobSlot(job_id=UUID(int=1))
    newer = JobSlot(job_id=UUID(int=1))
    pool.add(older)
    pool.add(newer)

    pool.remove(older)
    assert list(pool) == [newer]

    pool.remove(newer)
    assert len(pool) == 0


def test_jobs_to_cancel_are_those_of_this_worker_whose_cancel_was_requested() -> None:
    pool = pool_of(CALLING, CALLING)

    stopped = pool.to_cancel([held(0), held(1, is_cancel_requested=True), held(2, is_cancel_requested=True)])

    assert [slot.job_id for slot in stopped] == [UUID(int=1)]


def test_unfinished_attempts_are_those_whose_outcome_is_not_being_written() -> None:
    pool = pool_of(PENDING, STARTING, CALLING, FINISHING)

    assert [slot.phase for slot in pool.unfinished()] == [PENDING, STARTING, CALLING]


@pytest.mark.parametrize(
    ("heartbeats", "released"),
    [
        # Unknown once: its claim may still answer.
        ([([held(7)], False)], []),
        ([([held(7)], False), ([held(7)], False)], [held(7)]),
        # Known, or no longer held.
        ([([held(0)], False), ([held(0)], False)], []),
        ([([held(7)], False), ([], False)], []),
        # A claim is on its way: nothing is concluded from that heartbeat.
        ([([held(7)], False), ([held(7)], True)], []),
        ([([held(7)], True), ([held(7)], False)], []),
        ([([held(7)], True), ([held(7)], False), ([held(7)], False)], [held(7)]),
        # Another attempt is another claim.
        ([([held(7)], False), ([held(7, attempt=2)], False)], []),
        ([([held(7), held(8)], False), ([held(8), held(9)], False)], [held(8)]),
    ],
)
def test_claims_to_release_are_those_unknown_at_two_heartbeats_in_a_row(
    heartbeats: Sequence[tuple[Sequence[HeldJob], bool]], released: Sequence[HeldJob]
) -> None:
    pool = pool_of(CALLING)

    results = [pool.to_release(jobs, is_claiming=is_claiming) for jobs, is_claiming in heartbeats]

    assert results[-1] == frozenset(released)


@pytest.mark.parametrize(
    ("limit", "count", "slots", "opens_more_soon"),
    [
        (8, 8, 100, True),
        # The claim found fewer jobs than it might have: none wait.
        (8, 7, 100, False),
        # All slots are open already.
        (8, 8, 8, False),
    ],
)
def test_more_slots_open_soon_for_a_backlog_while_the_ramp_is_opening(
    limit: int, count: int, slots: int, opens_more_soon: bool
) -> None:
    pool = pool_of(slots=slots, max_starting=8)

    pool.on_claimed(limit, count)

    assert pool.opens_more_soon is opens_more_soon
