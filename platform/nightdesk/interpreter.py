"""How Python itself is set in processes that serve for long."""

import gc

#: Objects made since the last look for cycles, and how often the older ones are looked through with them.
YOUNG, MIDDLE, OLD = 20_000, 20, 20


def settle_in() -> None:
    """Call it when all is imported. What was loaded stays, so it is not looked through for cycles again and again:
    300,000 objects, which takes 50 ms and more each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
