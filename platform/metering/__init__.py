"""Usage records of provider calls, their prices and cost, and their transfer from Redis to Postgres."""
