"""How Python itself is set in processes that serve for long."""

import gc
import sys

#: Objects made since the last look for cycles, and how often the older ones are looked through with them.
YOUNG, MIDDLE, OLD = 20_000, 20, 20
#: How long a thread computes before it lets another one. An event loop waits no longer for one that talks to Postgres.
TURN_SECONDS = 0.001


def settle_in() -> None:
    """Call it when all is imported. What was loaded stays, so it is not looked through for cycles again and again:
    300,000 objects, which takes 50 ms and more each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    sys.setswitchinterval(TURN_SECONDS)
