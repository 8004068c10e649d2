"""Admin pages of jobs, batches, pauses and workers. Importing this package registers them."""

from jobs.admin import batch, job, pause, worker

__all__ = ["batch", "job", "pause", "worker"]
