"""Examples of the OpenAPI document."""

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
    "attempt": 0,
    "max_attempts": 3,
    "replay_of": None,
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
