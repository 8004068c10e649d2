"""Values made for a schema are valid for it: each schema here is written by a type, which then reads the value."""

import re
from contextlib import suppress
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from simulator.errors import ApiError
from simulator.regex_sampler import sample_match
from simulator.schemas import sample_value


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(Struct, forbid_unknown_fields=True):
    name: str
    size: Annotated[int, Meta(ge=1, le=3)]


class Tree(Struct, forbid_unknown_fields=True):
    leaf: Leaf
    children: "list[Tree]"
    color: Color | None = None


class Cat(Struct, tag=True):
    lives: Annotated[int, Meta(gt=0, lt=10)]


class Dog(Struct, tag=True):
    name: str


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    None,
    list[int],
    dict[str, int],
    tuple[int, str, bool],
    Leaf,
    Tree,
    Cat | Dog,
    Color,
    Literal["a", "b"],
    Literal[1, 2],
    int | None,
    str | int,
    Annotated[int, Meta(ge=10, le=12)],
    Annotated[int, Meta(gt=10, lt=12)],
    Annotated[int, Meta(multiple_of=7, ge=8)],
    Annotated[int, Meta(le=-5)],
    Annotated[float, Meta(gt=0, lt=1)],
    Annotated[float, Meta(ge=0.1, le=0.2)],
    Annotated[str, Meta(min_length=100)],
    Annotated[str, Meta(max_length=3)],
    Annotated[str, Meta(pattern=r"^[A-Z]{3}-\d{4}$")],
    Annotated[str, Meta(pattern=r"^(\+\d{1,3}|0)[ -]?\w+$", min_length=12)],
    Annotated[list[int], Meta(min_length=5)],
    Annotated[list[int], Meta(max_length=0)],
    Annotated[dict[str, bool], Meta(min_length=2)],
    list[Annotated[list[Leaf], Meta(min_length=1)]],
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2, 12345, 2**64 - 1])
def test_a_value_is_valid_for_its_schema(kind: Any, seed: int) -> None:
    value = sample_value(msgspec.json.schema(kind), seed)

    msgspec.convert(value, kind)


def test_the_same_seed_makes_the_same_value_and_others_differ() -> None:
    schema = msgspec.json.schema(Leaf)

    assert sample_value(schema, 5) == sample_value(schema, 5)
    assert len({str(sample_value(schema, seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize(
    ("schema", "accepts"),
    [
        ({}, lambda value: isinstance(value, str)),
        (True, lambda value: isinstance(value, str)),
        ({"const": 5}, lambda value: value == 5),
        ({"type": ["null", "integer"]}, lambda value: isinstance(value, int)),
        ({"properties": {"a": {"type": "integer"}}}, lambda value: isinstance(value["a"], int)),
        ({"type": "object", "required": ["z"]}, lambda value: "z" in value),
        ({"items": {"type": "integer"}}, lambda value: all(isinstance(item, int) for item in value)),
        (
            {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2, 3]}, "minItems": 3},
            lambda value: sorted(value) == [1, 2, 3],
        ),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": False}, lambda value: value == [1]),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
            lambda value: value == {"a": 1, "b": 2},
        ),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, lambda value: value == 1),
        ({"type": "string", "format": "date-time"}, lambda value: re.fullmatch(r"\d{4}-.*Z", value)),
        ({"type": "string", "format": "email"}, lambda value: "@" in value),
        ({"type": "number", "minimum": 3, "maximum": 3}, lambda value: value == 3),
        ({"$ref": "#/$defs/nothing"}, lambda value: value is not None),
    ],
)  # fmt: skip
def test_keywords_no_type_writes(schema: Any, accepts: Any) -> None:
    for seed in range(5):
        assert accepts(sample_value(schema, seed))


def test_a_schema_of_itself_comes_to_an_end() -> None:
    forever = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    nested = {
        "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}},
        "$ref": "#/$defs/n",
    }

    assert sample_value(forever, 1) is not None
    assert sample_value(nested, 1)["n"]["n"]


WORDS = [
    *("type", "enum", "items", "properties", "required", "minimum", "maxItems"),
    *("minLength", "pattern", "anyOf", "$ref", "multipleOf"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_nonsense_is_refused_or_survived(schema: Any) -> None:
    with suppress(ApiError):
        msgspec.json.encode(sample_value(schema, 1))


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z0-9-]+$",
        r"^\d{4}-\d{2}-\d{2}$",
        r"^[A-Z]{3}$",
        r"^(foo|bar)baz?$",
        r"^#[0-9a-fA-F]{6}$",
        r"^[^\s@]+@[^\s@]+\.[a-z]{2,}$",
        r"\.(jpg|png)$",
        r"^a{0,3}b*$",
        r"^(?:x|y){2}[\]\\]$",
        r"^(?P<year>\d+)$",
        r"",
    ],
)
def test_a_sample_matches_its_pattern(pattern: str) -> None:
    text = sample_match(pattern)

    assert text is not None
    assert re.search(pattern, text)


@pytest.mark.parametrize("pattern", ["(", "[a", r"(?=x)y", r"(a)\1b(?!b)", "*"])
def test_what_it_cannot_sample_it_gives_up(pattern: str) -> None:
    text = sample_match(pattern)

    assert text is None or re.search(pattern, text)
