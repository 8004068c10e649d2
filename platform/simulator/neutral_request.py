"""A request in neutral form: what the simulator needs of it, independent of its dialect."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec

from simulator.tokens import tokens_of


class ToolMode(StrEnum):
    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers. A custom one takes free text instead of arguments."""

    name: str
    description: str
    schema: Any
    is_custom: bool = False

    @property
    def tokens(self) -> int:
        return tokens_of(self.name) + tokens_of(self.description) + tokens_of(to_compact_json(self.schema))


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools offered, and what the caller says about using them."""

    offered: tuple[Tool, ...] = ()
    mode: ToolMode = ToolMode.AUTO
    #: Only these may be called; empty means all of them.
    allowed: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        if self.mode == ToolMode.NONE:
            return ()
        return tuple(tool for tool in self.offered if not self.allowed or tool.name in self.allowed)


NO_TOOLS = OfferedTools()


@dataclass(frozen=True, slots=True)
class NeutralRequest:
    model: str
    #: Everything random about the answer comes from this number.
    seed: int
    #: The text of the last user message.
    topic: str
    input_tokens: int
    stream: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    #: OpenAI's `top_logprobs`: the number of alternatives per token. None: no log probabilities.
    logprobs: int | None = None
    tools: OfferedTools = NO_TOOLS
    #: The schema of the structured output, `{"type": "object"}` for JSON mode, None for prose.
    schema: Any = None
    #: The caller wants to read the reasoning (Anthropic's thinking blocks).
    thinking: bool = False
    #: OpenAI streams only.
    include_usage: bool = False
    obfuscated: bool = False
    service_tier: str = "default"
    #: Anthropic: how fast, and where.
    speed: str = "standard"
    inference_geo: str = "global"


def seed_for(model: str, texts: Sequence[str]) -> int:
    """A number from the model and the texts, not from the bytes: streamed or not, the answer is the same."""
    return int.from_bytes(blake2b("\x1f".join((model, *texts)).encode(errors="replace"), digest_size=8).digest())


def to_compact_json(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()
