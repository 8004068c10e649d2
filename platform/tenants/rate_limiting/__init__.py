"""Rate limits, concurrency limits, nonces, idempotency keys and the response cache: one round trip to Redis decides."""
