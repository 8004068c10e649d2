"""Embeddings, requested and decoded by OpenAI's own client."""

import math
from base64 import b64decode
from struct import unpack
from typing import Any

import httpx
import openai as openai_sdk
import pytest
from openai import OpenAI

from tests.simulator_process import SimulatorProcess

SMALL = "text-embedding-3-small"


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def vector(openai: OpenAI, text: str, **wanted: Any) -> list[float]:
    return openai.embeddings.create(model=SMALL, input=text, **wanted).data[0].embedding


def test_both_encodings_carry_the_same_numbers(http: httpx.Client, openai: OpenAI) -> None:
    floats = vector(openai, "Hello", encoding_format="float")
    decoded = vector(openai, "Hello")
    raw = http.post(
        "/v1/embeddings",
        json={"model": SMALL, "input": "Hello", "encoding_format": "base64"},
        headers={"authorization": "Bearer a"},
    ).json()["data"][0]["embedding"]

    assert len(floats) == 1536
    assert decoded == floats
    assert list(unpack("<1536f", b64decode(raw))) == floats


def test_vectors_have_length_one_and_depend_on_the_text_alone(openai: OpenAI) -> None:
    first, again, other = (vector(openai, text) for text in ("Hello", "Hello", "Goodbye"))

    assert first == again
    assert first != other
    assert math.isclose(cosine(first, first), 1, abs_tol=1e-5)


def test_texts_that_share_words_lie_closer_together(openai: OpenAI) -> None:
    bread = vector(openai, "How do I bake sourdough bread at home?")
    also_bread = vector(openai, "Tips to bake good sourdough bread")
    cars = vector(openai, "Electric cars are cheaper than they were")

    assert cosine(bread, also_bread) > cosine(bread, cars) + 0.2


def test_many_texts_keep_their_order_and_are_all_counted(openai: OpenAI, simulator: SimulatorProcess) -> None:
    answer = openai.embeddings.create(model=SMALL, input=["Hello", "Grüße aus Köln", "x"])

    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.data[1].embedding == vector(openai, "Grüße aus Köln")
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 2 + 5 + 1
    assert simulator.journal()[0]["input_tokens"] == 8
    assert simulator.journal()[0]["output_tokens"] == 0


def test_token_numbers_are_taken_as_one_text_or_many(openai: OpenAI) -> None:
    one = openai.embeddings.create(model=SMALL, input=[1, 2, 3])
    two = openai.embeddings.create(model=SMALL, input=[[1, 2, 3], [4]])

    assert (len(one.data), one.usage.prompt_tokens) == (1, 3)
    assert (len(two.data), two.usage.prompt_tokens) == (2, 4)
    assert two.data[0].embedding == one.data[0].embedding


@pytest.mark.parametrize(
    ("model", "asked", "given"),
    [
        (SMALL, None, 1536),
        (SMALL, 256, 256),
        ("text-embedding-3-large", None, 3072),
        ("text-embedding-ada-002", None, 1536),
        ("somebodys-model", None, 1536),
        ("somebodys-model", 7, 7),
    ],
)
def test_the_length_is_the_models_or_the_one_asked_for(
    openai: OpenAI, model: str, asked: int | None, given: int
) -> None:
    wanted: dict[str, Any] = {} if asked is None else {"dimensions": asked}

    assert len(openai.embeddings.create(model=model, input="x", **wanted).data[0].embedding) == given


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"input": ""}, "empty"),
        ({"input": []}, "empty"),
        ({"input": ["a", ""]}, "empty"),
        ({"input": ["a"] * 2049}, "2048"),
        ({"input": "word " * 8000}, "maximum context length"),
        ({"input": [["mixed"], 1]}, "input"),
        ({"input": ["mixed", 1]}, "mixed"),
        ({"input": ["a " * 8000] * 80}, "300000"),
        ({"input": "x", "dimensions": 5000}, "dimensions"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "model": "text-embedding-ada-002", "dimensions": 5}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "extra_body": {"no_such_field": 1}}, "no_such_field"),
    ],
)
def test_what_openai_refuses_is_refused(openai: OpenAI, wanted: dict[str, Any], match: str) -> None:
    with pytest.raises(openai_sdk.BadRequestError, match=match):
        openai.embeddings.create(**{"model": SMALL, **wanted})
