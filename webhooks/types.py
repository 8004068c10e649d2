"""The event types there are, and what each one says."""

EVENT_TYPES = {
    "job.succeeded": "A job ended and its result can be fetched.",
    "job.failed": "A job ended without a result; the event says why.",
    "job.canceled": "A job was canceled.",
    "job.expired": "A job waited in the queue past its expiry.",
    "endpoint.test": "A test that somebody asked for, to see an endpoint work.",
}
