"""The proof that accepted work is kept: real processes are killed, frozen and cut off, and then the books compared."""
