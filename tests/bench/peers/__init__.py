"""What people write without Nightdesk: plain Celery that asks a provider, set up as usual."""
