"""Jobs, batches, pauses and workers in the admin. Prompts and answers are shown on a deliberate click only."""

from jobs.admin import job, worker

__all__ = ["job", "worker"]
