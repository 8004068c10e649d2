"""The usual alternative to Nightdesk: plain Celery tasks that call a provider."""
