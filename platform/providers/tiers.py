"""Price tiers of a model: the same answer, sooner, cheaper or in another region, each at its own price."""

from enum import StrEnum


class Tier(StrEnum):
    """The price tier of a call."""

    STANDARD = "standard"
    #: OpenAI's `service_tier`, and that of compatible servers. Its `fast` is `priority`.
    FLEX = "flex"
    PRIORITY = "priority"
    #: The vendor's own batch API.
    BATCH = "batch"
    #: Anthropic's `speed` and `inference_geo`, which may be combined.
    FAST = "fast"
    US = "us"
    FAST_US = "fast-us"
    #: A tier without a known price.
    OTHER = "other"


#: What every caller may request: these cost no more than the standard tier.
NON_PREMIUM_TIERS = frozenset({Tier.STANDARD, Tier.FLEX, Tier.BATCH})
