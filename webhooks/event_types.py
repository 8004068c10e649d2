"""The event types that an endpoint can subscribe to, each with its description for forms.

`docs/reference/events.md` describes their payloads.
"""

EVENT_TYPES = {
    "job.succeeded": "A job finished and its result can be fetched.",
    "job.failed": "A job finished without a result; the event says why.",
    "job.canceled": "A job was canceled.",
    "job.expired": "A job was not started before its expiry.",
    "batch.progress": "More requests of a batch finished; sent only if the batch has progress_seconds.",
    "batch.completed": "Every request of a batch finished; results and errors can be fetched.",
    "batch.failed": "A batch was rejected because its input file is not valid; the event says why.",
    "batch.expired": "The completion window of a batch ended; unfinished requests are listed as expired.",
    "batch.cancelled": "A batch was canceled; results until then can be fetched.",
}
