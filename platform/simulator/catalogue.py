"""The models that the simulator knows: context windows, snapshots, and what they reject. Any other name works too."""

from dataclasses import dataclass

DEFAULT_CONTEXT = 200_000
DEFAULT_MAX_OUTPUT = 128_000
TINY_CONTEXT = 256
MISSING_PREFIX = "missing-"

#: 2026-10-21, the date of the newest Anthropic version.
CREATED_UNIX_SECONDS = 1_792_540_800
CREATED_AT = "2026-10-21T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    context: int = DEFAULT_CONTEXT
    max_output: int = DEFAULT_MAX_OUTPUT
    #: The dated name that answers have instead of the alias.
    snapshot: str | None = None
    #: Vectors have this length; 0 for models that do not embed.
    dimensions: int = 0


OPENAI_MODELS = (
    Model("gpt-6-astra", 1_050_000),
    Model("gpt-6.1-sol", 1_050_000),
    Model("gpt-6.1-terra", 1_050_000),
    Model("gpt-6-sol", 1_050_000),
    Model("gpt-6-luna", 1_050_000),
    Model("gpt-5.6-sol", 1_050_000),
    Model("gpt-5.6-terra", 1_050_000),
    Model("gpt-5.6-luna", 1_050_000),
    Model("gpt-5.5", 1_050_000),
    Model("gpt-5.4", 1_050_000),
    Model("gpt-5.4-mini", 400_000),
    Model("gpt-5.4-nano", 400_000),
    Model("gpt-5.2", 400_000),
    Model("gpt-5.1", 400_000),
    Model("gpt-5", 400_000, snapshot="gpt-5-2025-08-07"),
    Model("gpt-5-mini", 400_000, snapshot="gpt-5-mini-2025-08-07"),
    Model("gpt-5-nano", 400_000, snapshot="gpt-5-nano-2025-08-07"),
    Model("gpt-4.1", 1_047_576, 32_768, snapshot="gpt-4.1-2025-04-14"),
    Model("gpt-4.1-mini", 1_047_576, 32_768, snapshot="gpt-4.1-mini-2025-04-14"),
    Model("gpt-4.1-nano", 1_047_576, 32_768, snapshot="gpt-4.1-nano-2025-04-14"),
    Model("gpt-4o", 128_000, 16_384, snapshot="gpt-4o-2024-08-06"),
    Model("gpt-4o-mini", 128_000, 16_384, snapshot="gpt-4o-mini-2024-07-18"),
    Model("o3", 200_000, 100_000, snapshot="o3-2025-04-16"),
    Model("o4-mini", 200_000, 100_000, snapshot="o4-mini-2025-04-16"),
    Model("text-embedding-3-small", 8_192, 0, dimensions=1536),
    Model("text-embedding-3-large", 8_192, 0, dimensions=3072),
    Model("text-embedding-ada-002", 8_192, 0, dimensions=1536),
)

ANTHROPIC_MODELS = (
    Model("claude-fable-5-1", 1_000_000),
    Model("claude-opus-5-5", 1_000_000),
    Model("claude-sonnet-5-5", 1_000_000),
    Model("claude-haiku-5-5", 1_000_000),
    Model("claude-opus-5", 1_000_000),
    Model("claude-sonnet-5", 1_000_000),
    Model("claude-opus-4-8", 1_000_000),
    Model("claude-opus-4-7", 1_000_000),
    Model("claude-opus-4-6", 1_000_000),
    Model("claude-sonnet-4-6", 1_000_000),
    Model("claude-opus-4-5", 200_000, 64_000, snapshot="claude-opus-4-5-20251101"),
    Model("claude-sonnet-4-5", 200_000, 64_000, snapshot="claude-sonnet-4-5-20250929"),
    Model("claude-haiku-4-5", 200_000, 64_000, snapshot="claude-haiku-4-5-20251001"),
)

KNOWN_MODELS = {model.id: model for model in (*OPENAI_MODELS, *ANTHROPIC_MODELS, Model("tiny-context", TINY_CONTEXT))}

#: Families that reason before they answer, and therefore reject `max_tokens`.
REASONING_PREFIXES = ("o1", "o3", "o4-", "gpt-5", "gpt-6")
#: Families that reject sampling parameters, and function tools, unless the reasoning effort is "none".
EFFORT_BOUND_PREFIXES = ("gpt-5.6", "gpt-6")
#: Families that reject the effort "none".
ALWAYS_REASONING = ("gpt-6-astra", "gpt-6.1-sol")

#: Anthropic models that reject the `tool_choice` types any and tool.
NO_FORCED_TOOLS = ("claude-sonnet-5-5", "claude-opus-5-5")
#: Anthropic models whose thinking cannot be disabled.
ALWAYS_THINKING = ("claude-opus-5-5", "claude-fable-5-1")
#: Anthropic models that reject sampling parameters and thinking budgets in every version of the API.
ADAPTIVE_ONLY = ("claude-sonnet-5", "claude-sonnet-5-5")


def model_for(name: str) -> Model:
    return KNOWN_MODELS.get(name) or Model(name)


def is_missing(name: str) -> bool:
    return name.startswith(MISSING_PREFIX)
