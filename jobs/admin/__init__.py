"""Jobs, batches, pauses and workers in the admin. Prompts and answers are shown on a deliberate click only."""

from jobs.admin import batch, job, pause, worker

__all__ = ["batch", "job", "pause", "worker"]
