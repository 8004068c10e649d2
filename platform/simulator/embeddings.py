"""OpenAI's embeddings: vectors that depend on the text alone, and lie close together for texts which share words."""

import math
import re
from array import array
from base64 import b64encode
from functools import lru_cache
from hashlib import shake_128
from sys import byteorder
from typing import Annotated, Any, Literal, TypeAlias
from zlib import crc32

import msgspec
from msgspec import Meta, Struct

from simulator.catalogue import model_for
from simulator.compose import Usage
from simulator.decode import decoder_for, to_openai_error
from simulator.errors import ApiError
from simulator.tokens import tokens_of

DEFAULT_DIMENSIONS = 1536
MAX_INPUTS = 2048
MAX_TOKENS_PER_INPUT = 8192
MAX_TOKENS = 300_000

#: How many dimensions of the vector one word affects.
DIMENSIONS_PER_WORD = 16
#: Added per word. Noise of at most 4,096 per dimension makes every text different; words must outweigh it.
WORD_WEIGHT = 40_000
WORD = re.compile(r"\w+")

# In quotes: an array cannot be subscripted before Python 3.12.
Vector: TypeAlias = "array[float]"


class EmbeddingsRequest(Struct, forbid_unknown_fields=True):
    input: str | list[str | int | list[int]]
    # Azure's dated surface names it in the path instead.
    model: str = ""
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    # Not optional: a caller that sends null has a bug, and some servers refuse it.
    encoding_format: Literal["float", "base64"] = "float"
    user: Any = None


decode = decoder_for(EmbeddingsRequest, to_openai_error)
encode = msgspec.json.Encoder().encode


def create_embeddings(body: bytes, model: str, *, drop_usage: bool = False) -> tuple[bytes, Usage]:
    """Return the body of the answer, and its token usage. Raises `ApiError` if OpenAI would reject the request."""
    request = decode(body)
    if not model:
        raise ApiError(400, "you must provide a model parameter")
    inputs = inputs_of(request.input)
    tokens = check_inputs(inputs)
    dimensions = dimensions_for(model, request.dimensions)
    vectors = [vector_of(model, _as_text(given), dimensions) for given in inputs]
    answer: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode_vector(vector, request.encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
    }
    if not drop_usage:
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode(answer), Usage(tokens, 0)


def inputs_of(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Return one text, or one list of token ids, for each requested vector."""
    if isinstance(given, str):
        return [given]
    numbers = [item for item in given if isinstance(item, int)]
    if numbers and len(numbers) == len(given):
        return [numbers]
    if numbers:
        raise _bad_input("'$.input' is invalid: texts and tokens cannot be mixed.")
    return [item for item in given if not isinstance(item, int)]


def check_inputs(inputs: list[str | list[int]]) -> int:
    """The number of tokens in all inputs. Raises `ApiError` if there are too many, or none."""
    if not inputs or not all(inputs):
        raise _bad_input("'$.input' is invalid: it cannot be empty.")
    if len(inputs) > MAX_INPUTS:
        raise _bad_input(f"'$.input' is invalid: at most {MAX_INPUTS} entries are allowed.")
    counts = [len(given) if isinstance(given, list) else tokens_of(given) for given in inputs]
    if max(counts) > MAX_TOKENS_PER_INPUT:
        raise ApiError(
            400,
            f"This model's maximum context length is {MAX_TOKENS_PER_INPUT} tokens, however you requested "
            f"{max(counts)} tokens. Please reduce your prompt.",
            code="context_length_exceeded",
            param="input",
        )
    if sum(counts) > MAX_TOKENS:
        raise _bad_input(f"Requested {sum(counts)} tokens, max {MAX_TOKENS} tokens per request.")
    return sum(counts)


def dimensions_for(model: str, requested: int | None) -> int:
    own = model_for(model).dimensions
    if requested is None:
        return own or DEFAULT_DIMENSIONS
    if own and not model.startswith("text-embedding-3"):
        raise ApiError(400, "This model does not support specifying dimensions.", param="dimensions")
    if own and requested > own:
        raise ApiError(
            400,
            f"Invalid value for 'dimensions' = {requested}. Must be less than or equal to {own}.",
            param="dimensions",
        )
    return requested


@lru_cache(maxsize=512)
def vector_of(model: str, text: str, dimensions: int) -> Vector:
    """A vector of length 1, in the 32-bit numbers which both encodings carry."""
    noise = array("h", shake_128(f"{model}\n{text}".encode(errors="replace")).digest(2 * dimensions))
    raw: list[float] = [number >> 3 for number in noise]
    for word in WORD.findall(text.lower()):
        for place in range(DIMENSIONS_PER_WORD):
            number = crc32(f"{word} {place}".encode())
            raw[(number >> 1) % dimensions] += WORD_WEIGHT if number & 1 else -WORD_WEIGHT
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return array("f", [number / length for number in raw])


def _encode_vector(vector: Vector, encoding: str) -> list[float] | str:
    if encoding == "float":
        return vector.tolist()
    if byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()


def _as_text(given: str | list[int]) -> str:
    return given if isinstance(given, str) else " ".join(map(str, given))


def _bad_input(message: str) -> ApiError:
    return ApiError(400, message, param="input")
