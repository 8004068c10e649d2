"""Benches: how fast the desk is on this machine. Goals are reported, never asserted."""
