"""The desk without one of its safeguards: each mutant changes one thing, and the simulation must detect it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from jobs import cancel
from jobs.models import Job
from jobs.worker import claim, execute, finish, sweep, transitions
from jobs.worker.fence import Fence
from jobs.worker.sweep import LossReason
from jobs.worker.transitions import Transition
from metering import usage_records


def fence_by_state_alone(patch: pytest.MonkeyPatch) -> None:
    """Any worker may finish a running job, as in some queues."""

    def lock_owned_jobs(fences: Iterable[Fence]) -> dict[Fence, Job]:
        requested = list(fences)
        running = Job.objects.filter(id__in=[fence.job_id for fence in requested], state="running")
        jobs = {job.id: job for job in running}
        return {fence: jobs[fence.job_id] for fence in requested if fence.job_id in jobs}

    patch.setattr(finish, "lock_owned_jobs", lock_owned_jobs)


def fence_by_id_alone(patch: pytest.MonkeyPatch) -> None:
    """Any worker may finish a job in any state."""

    def lock_owned_jobs(fences: Iterable[Fence]) -> dict[Fence, Job]:
        requested = list(fences)
        jobs = {job.id: job for job in Job.objects.filter(id__in=[fence.job_id for fence in requested])}
        return {fence: jobs[fence.job_id] for fence in requested}

    patch.setattr(finish, "lock_owned_jobs", lock_owned_jobs)


def no_fence_before_calls(patch: pytest.MonkeyPatch) -> None:
    """A call is opened without checking the owner of the attempt."""

    def lock_owned_jobs(fences: Iterable[Fence]) -> dict[Fence, Job]:
        requested = list(fences)
        jobs = {job.id: job for job in Job.objects.filter(id__in=[fence.job_id for fence in requested])}
        return {fence: jobs[fence.job_id] for fence in requested}

    patch.setattr(execute, "lock_owned_jobs", lock_owned_jobs)


def no_crash_cap(patch: pytest.MonkeyPatch) -> None:
    """A job may kill any number of workers."""
    patch.setattr(sweep, "MAX_CRASHES", 9)
    patch.setattr(sweep, "QUARANTINE_CRASHES", 9)


def crashes_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A lost worker costs its jobs nothing."""

    def transition_of_lost(job: Job, reason: LossReason, *, is_suspect_alone: bool) -> Transition:
        lost = original(job, reason, is_suspect_alone=is_suspect_alone)
        return Transition(
            lost.job, lost.state, lost.outcome, lost.attempt_problem, lost.problem, is_error=lost.is_error
        )

    original = sweep._transition_of_lost
    patch.setattr(sweep, "_transition_of_lost", transition_of_lost)


def ends_have_no_events(patch: pytest.MonkeyPatch) -> None:
    """The transaction that finishes a job writes no event."""
    patch.setattr(transitions, "record_job_ends", lambda _: None)


def cancels_have_no_events(patch: pytest.MonkeyPatch) -> None:
    """The transaction that cancels a queued job writes no event."""
    patch.setattr(cancel, "record_job_end", lambda _: None)


def swept_ends_have_no_events(patch: pytest.MonkeyPatch) -> None:
    """A sweep that finishes a job writes no event."""
    record_job_ends = vars(transitions)["record_job_ends"]

    def apply_transitions(moves: Sequence[Transition]) -> None:
        patch.setattr(transitions, "record_job_ends", lambda _: None)
        original(moves)
        patch.setattr(transitions, "record_job_ends", record_job_ends)

    original = transitions.apply_transitions
    patch.setattr(sweep, "apply_transitions", apply_transitions)


def oldest_first(patch: pytest.MonkeyPatch) -> None:
    """Claims go by age alone: a site with ten thousand jobs delays every later one."""
    _change_claim(patch, "priority, turn, available_at, id", "priority, available_at, id")


def priority_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Claims take turns and ignore priority."""
    _change_claim(patch, "ORDER BY priority, turn, available_at, id", "ORDER BY turn, available_at, id")


def caps_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A site may have any number of running jobs."""
    _change_claim(patch, "WHERE site_place <= site_room", "")
    _change_claim(patch, "site_room.room > 0 AND", "")


def late_usage_records_overwrite(patch: pytest.MonkeyPatch) -> None:
    """A late finish writes its usage records as if it came in time."""
    patch.setattr(usage_records, "write_fenced_out", usage_records.write)


def lost_calls_stay_open(patch: pytest.MonkeyPatch) -> None:
    """The sweep revokes an attempt and drops its open call."""
    patch.setattr(sweep, "close_lost_calls", lambda *_: 0)


#: Each with the promises that it must break.
MUTANTS: Mapping[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    fence_by_state_alone: {"fence", "billing"},
    fence_by_id_alone: {"fence", "billing", "broke"},
    no_fence_before_calls: {"accounts"},
    no_crash_cap: {"crash_cap"},
    crashes_are_not_counted: {"crash_cap"},
    ends_have_no_events: {"terminal_events_missing"},
    cancels_have_no_events: {"terminal_events_missing"},
    swept_ends_have_no_events: {"terminal_events_missing"},
    oldest_first: {"fairness"},
    priority_is_ignored: {"priority"},
    caps_are_ignored: {"caps"},
    late_usage_records_overwrite: {"billing"},
    lost_calls_stay_open: {"accounts"},
}


def _change_claim(patch: pytest.MonkeyPatch, old: str, new: str) -> None:
    assert old in claim.CLAIM
    patch.setattr(claim, "CLAIM", claim.CLAIM.replace(old, new))
