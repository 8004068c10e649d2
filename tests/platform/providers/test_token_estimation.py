"""The estimate is rough, rather too high than too low."""

from dataclasses import replace

import pytest

from providers.token_estimation import estimate_input_tokens, estimate_output_tokens, estimate_text_tokens
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    EmbeddingRequest,
    FinishReason,
    ImagePart,
    OutputFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
)

PROSE = "The quick brown fox jumps over the lazy dog and is never seen again in these woods. "


@pytest.mark.parametrize(
    ("text", "about"),
    [
        # About the count of current tokenizers; the bounds are wide.
        (PROSE, 19),
        ("def add(a: int, b: int) -> int:\n    return a + b\n", 20),
        ("Быстрая коричневая лиса прыгает", 8),
        ("敏捷的棕色狐狸跳过懒狗", 13),
        ("🌧🌧🌧", 6),
    ],
)
def test_a_text_is_not_underestimated_nor_far_overestimated(text: str, about: int) -> None:
    assert about * 0.8 <= estimate_text_tokens(text) <= about * 5


def test_empty_text_estimates_zero_tokens() -> None:
    assert estimate_text_tokens("") == 0


def test_a_text_with_lone_surrogates_is_estimated() -> None:
    assert estimate_text_tokens("\ud800") > 0


def request(*messages: ChatMessage) -> ChatRequest:
    return ChatRequest("m", messages)


def test_every_part_of_a_request_is_estimated() -> None:
    user = ChatMessage(Role.USER, (TextPart(PROSE),))
    plain = estimate_input_tokens(request(user))

    assert plain > estimate_text_tokens(PROSE)
    assert estimate_input_tokens(request(user, user)) > 1.9 * plain - 10
    for more in (
        request(replace(user, parts=(*user.parts, ImagePart(url="https://x.test/a.png")))),
        request(user, ChatMessage(Role.ASSISTANT, tool_calls=(ToolCall("a", "f", '{"x": 1}'),))),
        replace(request(user), tools=(Tool("f", "does things", {"type": "object"}),)),
        replace(request(user), output_format=OutputFormat("json_schema", schema={"type": "object"})),
    ):
        assert estimate_input_tokens(more) > plain


def test_a_low_detail_image_estimates_fewer_tokens() -> None:
    def with_detail(detail: str) -> int:
        part = ImagePart(url="https://x.test/a.png", detail="low" if detail == "low" else "high")
        return estimate_input_tokens(request(ChatMessage(Role.USER, (part,))))

    assert with_detail("low") < with_detail("high")


def test_embedding_inputs_are_estimated() -> None:
    assert estimate_input_tokens(EmbeddingRequest("m", ("abc", "abc"))) == 2
    assert estimate_input_tokens(EmbeddingRequest("m", ((1, 2, 3), (4,)))) == 4


def test_all_texts_of_an_answer_are_estimated() -> None:
    answer = Completion("i", "m", PROSE, FinishReason.STOP, None)
    more = replace(answer, reasoning=PROSE, tool_calls=(ToolCall("a", "f", "{}"),))

    assert estimate_output_tokens(answer) == estimate_text_tokens(PROSE)
    assert estimate_output_tokens(more) > 2 * estimate_output_tokens(answer)
