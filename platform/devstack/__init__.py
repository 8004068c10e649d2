"""The embedded default: PostgreSQL and Valkey from wheels, every process of a desk under one supervisor, the demo."""
