"""Moves many jobs from one state to the next: the rows, their attempts and their events, in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection

from jobs.events import record_job_ends
from jobs.models import AttemptOutcome, Job, JobState

#: The lengths of the columns. A message that is too long must not keep a job from ending.
CODE_LENGTH, MESSAGE_LENGTH = 60, 600

RESULT_FIELD = Job._meta.get_field("result")


@dataclass(frozen=True, slots=True)
class JobProblem:
    """An error: our code, and a message for people."""

    code: str = ""
    message: str = ""


#: No error.
NO_PROBLEM = JobProblem()


@dataclass(frozen=True, slots=True)
class Transition:
    """The new state of one job, and the outcome of its attempt if it was running. The caller has locked the row."""

    job: Job
    state: JobState
    #: None if no attempt is running.
    outcome: AttemptOutcome | None = None
    #: The error of the attempt.
    attempt_problem: JobProblem = NO_PROBLEM
    #: The error of the job; None leaves the error it has.
    problem: JobProblem | None = None
    #: The answer as plaintext; it is encrypted here.
    result: bytes | None = None
    #: Increments `error_count`, or `crash_count`.
    is_error: bool = False
    is_crash: bool = False
    #: How long a requeued job is not claimed.
    delay_seconds: float = 0.0


MOVE_JOBS = """
UPDATE jobs_job job
   SET state = move.state, worker_id = NULL, deadline_at = NULL,
       result = COALESCE(move.result, job.result),
       error_code = COALESCE(move.code, job.error_code),
       error_message = COALESCE(move.message, job.error_message),
       error_count = job.error_count + move.errors,
       crash_count = job.crash_count + move.crashes,
       available_at = CASE WHEN move.state = 'queued' THEN clock_timestamp() + make_interval(secs => move.delay)
                           ELSE job.available_at END,
       finished_at = CASE WHEN move.state = 'queued' THEN NULL ELSE clock_timestamp() END
  FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::int[], %s::int[], %s::float8[])
       AS move (id, state, result, code, message, errors, crashes, delay)
 WHERE job.id = move.id
"""

END_ATTEMPTS = """
UPDATE jobs_attempt attempt
   SET ended_at = clock_timestamp(), outcome = ended.outcome, error_code = ended.code, error_message = ended.message
  FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[])
       AS ended (job_id, number, outcome, code, message)
 WHERE attempt.job_id = ended.job_id AND attempt.number = ended.number AND attempt.ended_at IS NULL
"""


def apply_transitions(transitions: Sequence[Transition]) -> None:
    """Write the transitions, and record an event for each job that ended. In a transaction only."""
    if not transitions:
        return
    ended = [move for move in transitions if move.outcome is not None]
    with connection.cursor() as cursor:
        cursor.execute(MOVE_JOBS, _columns(_job_values(move) for move in transitions))
        if ended:
            cursor.execute(END_ATTEMPTS, _columns(_attempt_values(move) for move in ended))
    for move in transitions:
        _update_instance(move)
    record_job_ends(move.job for move in transitions if move.job.is_terminal)


def _job_values(move: Transition) -> tuple[object, ...]:
    code, message = (None, None) if move.problem is None else _truncate(move.problem)
    result = None if move.result is None else RESULT_FIELD.encrypt(move.result)
    errors, crashes = int(move.is_error), int(move.is_crash)
    return move.job.id, str(move.state), result, code, message, errors, crashes, float(move.delay_seconds)


def _attempt_values(move: Transition) -> tuple[object, ...]:
    return move.job.id, move.job.attempt, str(move.outcome), *_truncate(move.attempt_problem)


def _truncate(problem: JobProblem) -> tuple[str, str]:
    return problem.code[:CODE_LENGTH], problem.message[:MESSAGE_LENGTH]


def _columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """Convert rows to the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def _update_instance(move: Transition) -> None:
    """Update the fields of the object that its event contains."""
    move.job.state = move.state
    if move.problem is not None:
        move.job.error_code, move.job.error_message = _truncate(move.problem)
