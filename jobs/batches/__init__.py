"""Batches: many requests submitted together, run as jobs, and reported as one."""
