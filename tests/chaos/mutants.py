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

    def lock_held(fences: Iterable[Fence]) -> dict[Fence, Job]:
        wanted = list(fences)
        jobs = {job.id: job for job in Job.objects.filter(id__in=[fence.job_id for fence in wanted], state="running")}
        return {fence: jobs[fence.job_id] for fence in wanted if fence.job_id in jobs}

    patch.setattr(finish, "lock_owned_jobs", lock_held)


def fence_by_id_alone(patch: pytest.MonkeyPatch) -> None:
    """Any worker may finish a job in any state."""

    def lock_held(fences: Iterable[Fence]) -> dict[Fence, Job]:
        wanted = list(fences)
        jobs = {job.id: job for job in Job.objects.filter(id__in=[fence.job_id for fence in wanted])}
        return {fence: jobs[fence.job_id] for fence in wanted}

    patch.setattr(finish, "lock_owned_jobs", lock_held)


def no_fence_before_calls(patch: pytest.MonkeyPatch) -> None:
    """A call is opened without checking the owner of the attempt."""

    def lock_held(fences: Iterable[Fence]) -> dict[Fence, Job]:
        wanted = list(fences)
        jobs = {job.id: job for job in Job.objects.filter(id__in=[fence.job_id for fence in wanted])}
        return {fence: jobs[fence.job_id] for fence in wanted}

    patch.setattr(execute, "lock_owned_jobs", lock_held)


def no_crash_cap(patch: pytest.MonkeyPatch) -> None:
    """A job may kill any number of workers."""
    patch.setattr(sweep, "MAX_CRASHES", 9)
    patch.setattr(sweep, "QUARANTINE_CRASHES", 9)


def crashes_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A lost worker costs its jobs nothing."""

    def taken_away(job: Job, loss: LossReason, *, is_suspect_alone: bool) -> Transition:
        found = original(job, loss, is_suspect_alone=is_suspect_alone)
        return Transition(
            found.job, found.state, found.outcome, found.attempt_problem, found.problem, is_error=found.is_error
        )

    original = sweep._transition_of_lost
    patch.setattr(sweep, "_transition_of_lost", taken_away)


def ends_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """The transaction that finishes a job writes no event."""
    patch.setattr(transitions, "record_job_ends", lambda _: None)


def cancels_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """The transaction that cancels a queued job writes no event."""
    patch.setattr(cancel, "record_job_end", lambda _: None)


def only_swept_ends_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """A sweep that finishes a job writes no event."""
    told = vars(transitions)["record_job_ends"]

    def apply(moves: Sequence[Transition]) -> None:
        patch.setattr(transitions, "record_job_ends", lambda _: None)
        original(moves)
        patch.setattr(transitions, "record_job_ends", told)

    original = transitions.apply_transitions
    patch.setattr(sweep, "apply_transitions", apply)


def oldest_first(patch: pytest.MonkeyPatch) -> None:
    """Claims go by age alone: a site with ten thousand jobs delays every later one."""
    _change_claim(patch, "priority, turn, available_at, id", "priority, available_at, id")


def urgency_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Claims take turns and ignore priority."""
    _change_claim(patch, "ORDER BY priority, turn, available_at, id", "ORDER BY turn, available_at, id")


def caps_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A site may have any number of running jobs."""
    _change_claim(patch, "WHERE site_place <= site_room", "")
    _change_claim(patch, "site_room.room > 0 AND", "")


def late_accounts_overwrite(patch: pytest.MonkeyPatch) -> None:
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
    ends_are_not_told: {"terminal_events_missing"},
    cancels_are_not_told: {"terminal_events_missing"},
    only_swept_ends_are_not_told: {"terminal_events_missing"},
    oldest_first: {"fairness"},
    urgency_is_ignored: {"priority"},
    caps_are_ignored: {"caps"},
    late_accounts_overwrite: {"billing"},
    lost_calls_stay_open: {"accounts"},
}


def _change_claim(patch: pytest.MonkeyPatch, old: str, new: str) -> None:
    assert old in claim.CLAIM
    patch.setattr(claim, "CLAIM", claim.CLAIM.replace(old, new))
