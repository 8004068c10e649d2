"""How Python itself is set in processes that serve for long."""

import gc

#: Objects made since the last look for cycles, and how often the older ones are looked through with them.
GENERATION_0_THRESHOLD, GENERATION_1_THRESHOLD, GENERATION_2_THRESHOLD = 20_000, 20, 20


def tune_gc() -> None:
    """Call it when all is imported. What was loaded stays, so it is not looked through for cycles again and again:
    300,000 objects, which takes 50 ms and more each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GENERATION_0_THRESHOLD, GENERATION_1_THRESHOLD, GENERATION_2_THRESHOLD)
