"""Priorities of jobs and batches: their names in the API and the admin, and their stored numbers (lower is sooner)."""

NORMAL_PRIORITY = 100
PRIORITIES = {"high": NORMAL_PRIORITY - 50, "normal": NORMAL_PRIORITY, "low": NORMAL_PRIORITY + 50}


def priority_name(priority: int) -> str:
    """Return the name of a stored priority."""
    return next((name for name, value in PRIORITIES.items() if priority <= value), "low")
