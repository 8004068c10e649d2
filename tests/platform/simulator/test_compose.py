"""Texts, token counts and pieces, without any server."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.compose import StepKind, compose, steps_of
from simulator.controls import Controls
from simulator.neutral_request import NeutralRequest
from simulator.prose import answer_text, equal_parts, split_words
from simulator.tokens import cut_to_tokens, tokens_of

SEEDS = st.integers(0, 2**64 - 1)


def asked(topic: str, seed: int = 1, max_tokens: int | None = None, choices: int = 1) -> NeutralRequest:
    return NeutralRequest(model="m", seed=seed, topic=topic, input_tokens=10, max_tokens=max_tokens, choices=choices)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é", 1), ("éé", 1), ("ééé", 2), ("🙂", 1)]
)
def test_a_token_is_four_bytes_begun(text: str, tokens: int) -> None:
    assert tokens_of(text) == tokens


@given(st.text(), st.integers(0, 30))
def test_a_cut_text_costs_exactly_what_was_left_for_it(text: str, tokens: int) -> None:
    cut = cut_to_tokens(text, tokens)

    assert text.startswith(cut)
    assert tokens_of(cut) == min(tokens, tokens_of(text))


@given(st.text(max_size=200), SEEDS, st.integers(0, 300))
def test_the_control_tokens_is_met_whatever_is_asked(topic: str, seed: int, tokens: int) -> None:
    [choice] = compose(asked(topic, seed), Controls(tokens=tokens)).choices

    assert math.ceil(len(choice.text.encode()) / 4) == tokens


@given(st.text(max_size=2000), SEEDS)
def test_there_is_always_something_to_say(topic: str, seed: int) -> None:
    text = answer_text(seed, topic)

    assert text.strip()
    assert text == answer_text(seed, topic)


def test_a_long_text_is_quoted_in_its_own_order() -> None:
    sentences = [f"Sentence number {number:02d} is about nothing much at all." for number in range(100)]

    for seed in range(50):
        answer = answer_text(seed, "Summarize this. " + " ".join(sentences))
        places = [answer.index(sentence) for sentence in sentences if sentence in answer]
        assert 3 <= len(places) <= 6
        assert places == sorted(places)


@given(st.text(min_size=1))
def test_words_put_together_are_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text


@given(st.text(), st.integers(1, 80))
def test_equal_parts_put_together_are_the_text(text: str, count: int) -> None:
    parts = equal_parts(text, count)

    assert len(parts) == count
    assert "".join(parts) == text


@given(SEEDS, st.integers(0, 60), st.integers(1, 3), st.none() | st.integers(1, 70), st.integers(0, 20))
def test_the_last_step_has_served_exactly_the_usage(
    seed: int, max_tokens: int, choices: int, deltas: int | None, reasoning: int
) -> None:
    answer = compose(asked("Hello", seed, max_tokens, choices), Controls(reasoning_tokens=reasoning))
    steps = steps_of(answer, deltas)

    assert answer.usage.output_tokens <= max_tokens * choices
    assert [step.served_tokens for step in steps] == sorted(step.served_tokens for step in steps)
    if steps:
        assert steps[-1].served_tokens == answer.usage.output_tokens
    for index, choice in enumerate(answer.choices):
        pieces = [step.text for step in steps if step.kind == StepKind.TEXT and step.choice == index]
        assert "".join(pieces) == choice.text
