"""Who may begin now: limits, concurrency, nonce, idempotency and cache, decided in Redis in one round trip."""
