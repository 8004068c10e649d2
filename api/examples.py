"""Example requests and responses for the OpenAPI document."""

from typing import Any

CHAT_JOB: dict[str, Any] = {
    "kind": "chat",
    "body": {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "Summarize this article in five sentences: …"}],
        "max_completion_tokens": 500,
    },
    "metadata": {"post_id": "4711"},
}
MESSAGES_JOB: dict[str, Any] = {
    "kind": "messages",
    "body": {
        "model": "claude-haiku-5-5",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "Name three headlines for this article: …"}],
    },
    "priority": "high",
}
EMBEDDINGS_JOB: dict[str, Any] = {
    "kind": "embeddings",
    "body": {"model": "text-embedding-3-small", "input": ["first paragraph", "second paragraph"]},
}
QUEUED_JOB: dict[str, Any] = {
    "id": "job_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "object": "job",
    "kind": "chat",
    "state": "queued",
    "model": "gpt-5-mini",
    "queue": "default",
    "priority": "normal",
    "metadata": {"post_id": "4711"},
    "idempotency_key": None,
    "created_at": "2026-11-21T09:00:00.123456Z",
    "available_at": "2026-11-21T09:00:00.123456Z",
    "expires_at": None,
    "finished_at": None,
    "erased_at": None,
    "attempt": 0,
    "max_attempts": 3,
    "retry_of": None,
    "batch_id": None,
    "custom_id": None,
    "error": None,
    "usage": None,
    "cost_usd": None,
    "result": None,
    "attempts": [],
}
SUCCEEDED_JOB: dict[str, Any] = {
    **QUEUED_JOB,
    "state": "succeeded",
    "finished_at": "2026-11-21T09:00:03.456789Z",
    "attempt": 1,
    "usage": {"input_tokens": 19, "output_tokens": 10, "total_tokens": 29, "cached_input_tokens": 0},
    "cost_usd": "0.000024750000",
    "result": {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1795251603,
        "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
    },
    "attempts": [
        {
            "number": 1,
            "outcome": "ok",
            "started_at": "2026-11-21T09:00:00.234567Z",
            "ended_at": "2026-11-21T09:00:03.456789Z",
            "error": None,
            "calls": [
                {
                    "call": 1,
                    "provider": "openai",
                    "upstream_model": "gpt-5-mini",
                    "outcome": "ok",
                    "http_status": 200,
                    "error_kind": None,
                    "error_code": None,
                    "billable": True,
                    "estimated": False,
                    "input_tokens": 19,
                    "output_tokens": 10,
                    "tier": "standard",
                    "cost_usd": "0.000024750000",
                    "started_at": "2026-11-21T09:00:00.245678Z",
                    "duration_ms": 3187,
                }
            ],
        }
    ],
}
ENDPOINT: dict[str, Any] = {"url": "https://bakery.example/wp-json/nightdesk/v1/webhook", "description": "the shop"}
NEW_ENDPOINT: dict[str, Any] = {
    "id": "ep_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "object": "webhook_endpoint",
    "url": "https://bakery.example/wp-json/nightdesk/v1/webhook",
    "description": "the shop",
    "event_types": [],
    "is_enabled": True,
    "disabled_reason": None,
    "created_at": "2026-11-21T09:00:00.123456Z",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
FILE: dict[str, Any] = {
    "id": "file_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "object": "file",
    "bytes": 7_340_032,
    "created_at": 1795251600,
    "expires_at": 1797843600,
    "filename": "descriptions.jsonl",
    "purpose": "batch",
    "status": "processed",
}
DELETED_FILE: dict[str, Any] = {"id": "file_01ka2m7v5xf3v8k0q9r6t4w2ye", "object": "file", "deleted": True}
INLINE_BATCH: dict[str, Any] = {
    "endpoint": "/v1/chat/completions",
    "requests": [
        {
            "custom_id": "product-4711",
            "body": {
                "model": "gpt-5-mini",
                "messages": [{"role": "user", "content": "Rewrite this description in three sentences: …"}],
                "max_completion_tokens": 300,
            },
        }
    ],
    "metadata": {"night": "2026-11-21"},
    "progress_seconds": 60,
}
FILE_BATCH: dict[str, Any] = {
    "input_file_id": "file_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}
DRY_RUN_BATCH: dict[str, Any] = {**FILE_BATCH, "dry_run": True}
BATCH: dict[str, Any] = {
    "id": "batch_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": None,
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1795251600,
    "in_progress_at": 1795251600,
    "expires_at": 1795338000,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 1, "completed": 0, "failed": 0},
    "metadata": {"night": "2026-11-21"},
    "model": "gpt-5-mini",
    "usage": {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    },
    "counts": {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "canceled": 0, "expired": 0},
    "cost_usd": "0.000000000000",
    "priority": "normal",
    "max_attempts": 8,
    "progress_seconds": 60,
    "paused": False,
    "retry_of": None,
    "results_url": "https://desk.example/v1/batches/batch_01ka2m7v5xf3v8k0q9r6t4w2ye/results",
}
COMPLETED_BATCH: dict[str, Any] = {
    **BATCH,
    "status": "completed",
    "output_file_id": "file_01ka2n8w6yg4w9m1r0s7v5x3zf",
    "finalizing_at": 1795251612,
    "completed_at": 1795251612,
    "request_counts": {"total": 1, "completed": 1, "failed": 0},
    "usage": {
        "input_tokens": 412,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 96,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 508,
    },
    "counts": {"queued": 0, "running": 0, "succeeded": 1, "failed": 0, "canceled": 0, "expired": 0},
    "cost_usd": "0.000295000000",
}
ESTIMATE: dict[str, Any] = {
    "object": "batch.estimate",
    "endpoint": "/v1/chat/completions",
    "requests": 5000,
    "input_tokens": 2_060_000,
    "max_output_tokens": 1_500_000,
    "unbounded_requests": 0,
    "cost_usd": {"low": "0.515000000000", "high": "3.515000000000"},
    "unpriced_models": [],
    "models": [
        {
            "model": "gpt-5-mini",
            "requests": 5000,
            "input_tokens": 2_060_000,
            "max_output_tokens": 1_500_000,
            "cost_usd": {"low": "0.515000000000", "high": "3.515000000000"},
        }
    ],
}
RESULT_LINE = (
    '{"id":"batch_req_01ka2m7v5xf3v8k0q9r6t4w2yf","custom_id":"product-4711","response":{"status_code":200,'
    '"request_id":"job_01ka2m7v5xf3v8k0q9r6t4w2yf","body":{"id":"chatcmpl-1","object":"chat.completion"}},'
    '"error":null}'
)
TOKEN_REQUEST: dict[str, Any] = {
    "scope": "chat:write",
    "model": "gpt-5-mini",
    "max_tokens": 500,
    "origin": "https://bakery.example",
    "user": "customer-4711",
    "expires_in": 900,
}
TOKEN: dict[str, Any] = {
    "id": "tok_01ka2m7v5xf3v8k0q9r6t4w2ye",
    "object": "token",
    "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6Im5pZ2h0ZGVzay10b2tlbitqd3QiLCJraWQiOiJrMSJ9.eyJhdWQiOiJkZXNrIiwi….…",
    "scope": "chat:write",
    "model": "gpt-5-mini",
    "max_tokens": 500,
    "origin": "https://bakery.example",
    "user": "customer-4711",
    "expires_at": "2026-11-21T09:15:00Z",
}
LIMITS: dict[str, Any] = {
    "object": "limits",
    "windows": [
        {
            "name": "site",
            "kind": None,
            "model": None,
            "unit": "requests",
            "seconds": 60,
            "limit": 100,
            "remaining": 97,
            "reset_seconds": 41.25,
        },
        {
            "name": "kind:chat,model:gpt-5-mini",
            "kind": "chat",
            "model": "gpt-5-mini",
            "unit": "tokens",
            "seconds": 60,
            "limit": 20000,
            "remaining": 18350,
            "reset_seconds": 41.25,
        },
    ],
    "concurrency": {"limit": 10, "running": 2},
    "jobs": {"limit": 50, "running": 7},
}
TICKET_REQUEST: dict[str, Any] = {"job": "job_01ka2m7v5xf3v8k0q9r6t4w2ye", "origin": "https://bakery.example"}
TICKET: dict[str, Any] = {
    "object": "ticket",
    "ticket": "eyJhbGciOiJIUzI1NiIsInR5cCI6Im5pZ2h0ZGVzay10aWNrZXQrand0Iiwia2lkIjoiazEifQ.eyJhdWQiOiJqb2IiLCJzdWIi….…",
    "events_url": "https://desk.example/v1/jobs/job_01ka2m7v5xf3v8k0q9r6t4w2ye/events",
    "expires_at": "2026-11-21T09:10:00Z",
}
