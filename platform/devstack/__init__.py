"""The local stack: PostgreSQL and Valkey from wheels, all processes of a desk under one supervisor, and the demo."""
