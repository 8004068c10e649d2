"""Try again what failed in a batch: a new batch of these requests, for terminal rows never change."""

from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from core import clock
from core.ids import new_uuid
from inference import routing
from inference.errors import UnknownModel
from inference.routing import first_provider
from jobs.batches.create import LONGEST, window_of
from jobs.batches.insert import CHUNK_ROWS
from jobs.batches.read import find_batch
from jobs.batches.results import UNSUCCESSFUL, member_ids
from jobs.errors import BatchNotRetryable
from jobs.models import TERMINAL_BATCH_STATES, Batch, BatchState, Job
from jobs.tasks import bell
from tenants.limits import check_model
from tenants.models import Site

# The payload goes over as it is, sealed: it is bound to its table and column, which stay the same.
COPY_MEMBERS = """
INSERT INTO jobs_job (id, custom_id, model, provider, request_hash, payload, site_id, batch_id, kind, queue, priority,
                      state, payload_version, metadata, request_id, expires_at, attempt, max_attempts, crash_count,
                      error_count, error_code, error_message, replay_of_id)
SELECT fresh.id, old.custom_id, old.model, provider.name, old.request_hash, old.payload, old.site_id, %(batch_id)s,
       old.kind, old.queue, %(priority)s, 'queued', old.payload_version, old.metadata, %(request_id)s, %(expires_at)s,
       0, %(max_attempts)s, 0, 0, '', '', old.id
  FROM unnest(%(old_ids)s::uuid[], %(new_ids)s::uuid[]) AS fresh (old_id, id)
  JOIN jobs_job old ON old.id = fresh.old_id AND old.payload IS NOT NULL
  JOIN unnest(%(models)s::text[], %(providers)s::text[]) AS provider (model, name) ON provider.model = old.model
"""


def retry_failed(
    site: Site,
    public_id: str,
    request_id: str = "",
    *,
    only_model: str | None = None,
    max_tokens_cap: int | None = None,
) -> Batch:
    """Make a batch of the requests that failed, expired or were canceled; it names the old one as `replay_of`.

    Raises:
        BatchMissing: no batch of this site has that id.
        BatchNotRetryable: it is under way, or being tried again already, nothing in it failed, what was asked is
            erased, or the caller may less than whoever submitted it, or nobody serves its models any more.
        ModelNotAllowed: what was allowed then is not allowed now, or not to this caller.
    """
    with transaction.atomic():
        # Locked, so that of two who try it again at once one finds the other's batch.
        old = find_batch(site, public_id, lock=True)
        _check(old, max_tokens_cap)
        failed = Job.objects.filter(batch=old, state__in=UNSUCCESSFUL)
        models = sorted(set(failed.values_list("model", flat=True).order_by()))
        providers = {model: _provider_of(site, model, only_model) for model in models}
        new = Batch.objects.create(
            site_id=old.site_id,
            kind=old.kind,
            model=models[0] if len(models) == 1 else "",
            state=BatchState.IN_PROGRESS,
            in_progress_at=Now(),
            total=failed.count(),
            request_hash=old.request_hash,
            metadata=old.metadata,
            request_id=request_id,
            priority=old.priority,
            max_attempts=old.max_attempts,
            only_model=only_model or "",
            max_tokens_cap=old.max_tokens_cap,
            allows_dearer=old.allows_dearer,
            progress_seconds=old.progress_seconds,
            completion_window=old.completion_window,
            output_expires_seconds=old.output_expires_seconds,
            expires_at=clock.now() + (window_of(old.completion_window) or LONGEST),
            replay_of=old,
        )
        copied = sum(_copy(ids, new, providers) for ids in member_ids(old, UNSUCCESSFUL, CHUNK_ROWS))
        if copied < new.total:
            # Counted when they are there: they may have been erased a moment ago.
            raise BatchNotRetryable("Its requests were erased at the end of the time that this site keeps them.")
        transaction.on_commit(bell.ring)
    return Batch.objects.get(id=new.id)


def _check(old: Batch, max_tokens_cap: int | None) -> None:
    if not old.is_terminal:
        raise BatchNotRetryable(f"The batch is under way: it is {old.state}. Wait for its end, or cancel it.")
    if not old.failed:
        raise BatchNotRetryable("Every request of the batch succeeded, or it never had one that could be read.")
    if under_way := old.replays.exclude(state__in=TERMINAL_BATCH_STATES).first():
        raise BatchNotRetryable(f"It is being tried again already, as {under_way.public_id}; wait for its end.")
    if max_tokens_cap is not None and (old.max_tokens_cap is None or old.max_tokens_cap > max_tokens_cap):
        raise BatchNotRetryable(f"Your token allows at most {max_tokens_cap} tokens; the batch was allowed more.")


def _provider_of(site: Site, model: str, only_model: str | None) -> str:
    check_model(site, model, only_model)
    try:
        return first_provider(routing.current().targets_for(model))
    except UnknownModel as error:
        raise BatchNotRetryable(str(error)) from error


def _copy(old_ids: list[UUID], new: Batch, providers: dict[str, str]) -> int:
    """Copy the members as far as their requests are still there; return how many."""
    values: dict[str, Any] = {
        "old_ids": old_ids,
        "new_ids": [new_uuid() for _ in old_ids],
        "models": list(providers),
        "providers": list(providers.values()),
        "batch_id": new.id,
        "priority": new.priority,
        "request_id": new.request_id,
        "expires_at": new.expires_at,
        "max_attempts": new.max_attempts,
    }
    with connection.cursor() as cursor:
        cursor.execute(COPY_MEMBERS, values)
        return int(cursor.rowcount)
