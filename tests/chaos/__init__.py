"""Chaos tests that accepted work is kept: real processes are killed, frozen and disconnected, then ledgers compared."""
