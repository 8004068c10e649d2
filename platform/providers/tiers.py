"""The tiers that vendors sell one model in: the same answer, sooner, cheaper or elsewhere, each at its own price."""

from enum import StrEnum


class Tier(StrEnum):
    """Which price of a model holds for a call."""

    STANDARD = "standard"
    #: OpenAI's `service_tier`, and that of servers of its dialect. What it calls `fast` is `priority`.
    FLEX = "flex"
    PRIORITY = "priority"
    #: A vendor's own batches.
    BATCH = "batch"
    #: Anthropic's `speed` and `inference_geo`, which may come together.
    FAST = "fast"
    US = "us"
    FAST_US = "fast-us"
    #: One that nobody here has a price for.
    OTHER = "other"


#: What a caller may ask for that is trusted with little: it costs no more than the standard tier.
NON_PREMIUM_TIERS = frozenset({Tier.STANDARD, Tier.FLEX, Tier.BATCH})
