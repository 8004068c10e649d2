"""The event types there are, and what each one says."""

EVENT_TYPES = {
    "job.succeeded": "A job ended and its result can be fetched.",
    "job.failed": "A job ended without a result; the event says why.",
    "job.canceled": "A job was canceled.",
    "job.expired": "A job waited in the queue past its expiry.",
    "batch.progress": "Requests of a batch ended since it was last told; sent only if the batch asked for it.",
    "batch.completed": "Every request of a batch ended; results and errors can be fetched.",
    "batch.failed": "A batch was refused when its file was read; the event says why.",
    "batch.expired": "A batch reached the end of its completion window; what was unfinished is listed as expired.",
    "batch.cancelled": "A batch was canceled; what was done before can be fetched.",
    "endpoint.test": "A test that somebody asked for, to see an endpoint work.",
}
