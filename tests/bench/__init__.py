"""Benchmarks of the desk on this machine. Goals are reported, never asserted."""
