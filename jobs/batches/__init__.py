"""Batches: many requests handed in together, done as jobs, and told of as one."""
