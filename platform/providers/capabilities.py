"""Capabilities of each model family, as documented by the vendors (docs/reference/wire-formats.md, 2.1 and 11)."""

import re
from dataclasses import dataclass, replace

#: Weakest first. A caller may request any; a model accepts some.
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one model accepts. The defaults are those of a plain chat model."""

    tools: bool = True
    images: bool = True
    structured_output: bool = True
    #: The reasoning efforts it accepts, weakest first; empty for a model that takes no effort.
    efforts: tuple[str, ...] = ()
    #: Whether temperature and other sampling settings are accepted: always, never, or only with effort "none".
    sampling: str = "always"
    #: Whether a tool may be forced (`tool_choice` "required" or named).
    forced_tools: bool = True
    #: Tools are accepted in chat completions only with effort "none".
    tools_require_effort_none: bool = False
    #: Whether it accepts `verbosity`.
    verbosity: bool = False
    #: Anthropic: thinking can be disabled.
    thinking_optional: bool = True
    #: Anthropic: reasoning is requested as a budget of tokens, not as an effort.
    thinking_budget: bool = False

    def takes_sampling(self, effort: str | None) -> bool:
        return self.sampling == "always" or (self.sampling == "without_effort" and effort == "none")


def capabilities_of(vendor: str, model: str, kind: str) -> Capabilities:
    """Return the capabilities of the first family whose pattern matches."""
    if kind == "embedding":
        return _EMBEDDING
    # Azure serves OpenAI's models.
    families = _FAMILIES.get("openai" if vendor == "azure" else vendor, ())
    return next((capabilities for pattern, capabilities in families if re.match(pattern, model)), _UNKNOWN)


def clamp_reasoning_effort(requested: str | None, efforts: tuple[str, ...]) -> str | None:
    """Return the strongest accepted effort up to the requested one, else the weakest; None if none is to be sent."""
    if requested is None or not efforts:
        return None
    within = [effort for effort in efforts if REASONING_EFFORTS.index(effort) <= REASONING_EFFORTS.index(requested)]
    return within[-1] if within else efforts[0]


_EMBEDDING = Capabilities(tools=False, images=False, structured_output=False)
_UNKNOWN = Capabilities(images=False)

# OpenAI accepts "max" in /v1/responses only, so none of its lists has it.
_GPT_5 = Capabilities(efforts=("minimal", "low", "medium", "high"), sampling="never", verbosity=True)
_GPT_5_1 = replace(_GPT_5, efforts=("none", "low", "medium", "high"), sampling="without_effort")
_GPT_5_2 = replace(_GPT_5_1, efforts=("none", "low", "medium", "high", "xhigh"))
_GPT_5_6 = replace(_GPT_5_2, tools_require_effort_none=True)
_GPT_ALWAYS_REASONING = replace(_GPT_5_6, efforts=("low", "medium", "high", "xhigh"), sampling="never")
_CLAUDE_5 = Capabilities(efforts=("low", "medium", "high", "xhigh", "max"), sampling="never")
_CLAUDE_WITH_BUDGET = Capabilities(efforts=("low", "medium", "high", "xhigh", "max"), thinking_budget=True)

_FAMILIES: dict[str, tuple[tuple[str, Capabilities], ...]] = {
    "openai": (
        (r"gpt-6-astra|gpt-6\.1-sol", _GPT_ALWAYS_REASONING),
        (r"gpt-6|gpt-5\.6", _GPT_5_6),
        (r"gpt-5\.[2-5]", _GPT_5_2),
        (r"gpt-5\.1", _GPT_5_1),
        (r"gpt-5", _GPT_5),
        (r"o\d", Capabilities(efforts=("low", "medium", "high"), sampling="never")),
        (r"gpt-4", Capabilities()),
    ),
    "anthropic": (
        (r"claude-opus-5-5", replace(_CLAUDE_5, forced_tools=False, thinking_optional=False)),
        (r"claude-sonnet-5-5", replace(_CLAUDE_5, forced_tools=False)),
        (r"claude-fable-5-1", replace(_CLAUDE_5, thinking_optional=False)),
        (r"claude-(opus-4-[78]|[a-z]+-5)", _CLAUDE_5),
        (r"claude-(opus|sonnet)-4-6|claude-opus-4-5", Capabilities(efforts=("low", "medium", "high", "max"))),
        (r"claude-(sonnet|haiku)-4-5", _CLAUDE_WITH_BUDGET),
        (r"claude-sonnet-4", replace(_CLAUDE_WITH_BUDGET, structured_output=False)),
    ),
    "gemini": ((r"gemini", Capabilities(efforts=("low", "medium", "high"))),),
    "mistral": ((r"mistral-(large|medium|small)", Capabilities()),),
    "groq": ((r"openai/gpt-oss", Capabilities(images=False, efforts=("low", "medium", "high"))),),
}
