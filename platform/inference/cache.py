"""Keys and values of the answer cache. Pure. Exact: only an equal request is a cache hit.

A chat answer is cached as it was encoded for its caller, so its wire format is part of the key. Embedding vectors are
cached one by one: of a list of inputs only the misses are requested.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec

from providers.errors import BadResponse
from providers.types import ChatRequest, EmbeddingRequest, Embeddings, InferenceRequest, OriginalRequest, Usage

#: Must change with the format of keys or values, so that entries of an older format are misses.
KEY_VERSION = b"2"

#: How an answer is delivered, not what it says.
DELIVERY_FIELDS = ("stream", "stream_options")

_encoder = msgspec.json.Encoder(order="deterministic")


def answer_key(site: str, request: InferenceRequest, wire: str = "") -> bytes | None:
    """Return the key of a request's answer: 32 bytes. None if the request cannot be encoded.

    Equivalent bodies have the same key: the order of names and white space do not matter.
    """
    try:
        canonical = _encoder.encode(_canonical_parts(request))
    except (UnicodeError, RecursionError, ValueError):
        return None
    return hashlib.sha256(b"\0".join((KEY_VERSION, site.encode(), wire.encode(), canonical))).digest()


def _canonical_parts(request: InferenceRequest) -> Any:
    """Return everything that an answer may depend on: if the caller sent a body, all of its fields."""
    if isinstance(request, ChatRequest) and request.original is not None:
        return (
            request.model,
            request.max_tokens,
            request.original.dialect,
            request.original.headers,
            _fields(request.original),
        )
    return request


def _fields(original: OriginalRequest) -> dict[str, Any]:
    return {name: msgspec.json.decode(value) for name, value in original.fields.items() if name not in DELIVERY_FIELDS}


@dataclass(frozen=True)
class EmbeddingCacheResult:
    """An embedding request, and the vectors of its answer that are cached."""

    request: EmbeddingRequest
    #: The key of each input. Sites never share a key.
    keys: tuple[bytes, ...]
    #: The value of each key: the provider's name of the model, and the vector; None for a miss.
    cached: tuple[tuple[str, tuple[float, ...]] | None, ...]

    @cached_property
    def misses(self) -> EmbeddingRequest | None:
        """The request for the misses, each input once. None if there are no misses."""
        missing: dict[Any, None] = dict.fromkeys(text for text, hit in self._pairs() if hit is None)
        return replace(self.request, inputs=tuple(missing)) if missing else None

    def is_model_mismatch(self, misses: Embeddings) -> bool:
        """Return whether the hits are of another model than the misses: such vectors cannot be mixed."""
        return any(hit[0] != misses.model for hit in self.cached if hit)

    def without_hits(self) -> "EmbeddingCacheResult":
        """Return the result of the same request with misses only."""
        return EmbeddingCacheResult(self.request, self.keys, (None,) * len(self.keys))

    def answer(self, misses: Embeddings | None) -> Embeddings:
        """Return the complete answer, with the usage of `misses`: hits cost nothing."""
        if self.misses is None:
            return Embeddings(self._model(misses), tuple(hit[1] for hit in self.cached if hit), Usage())
        if misses is None or len(misses.vectors) != len(self.misses.inputs):
            raise BadResponse("The provider's answer does not contain a vector for each input.")
        if len(self.misses.inputs) == len(self.request.inputs):
            return misses  # no hits: the provider's answer, byte for byte
        new = dict(zip(self.misses.inputs, misses.vectors, strict=True))
        vectors = (hit[1] if hit else new[text] for text, hit in self._pairs())
        return Embeddings(self._model(misses), tuple(vectors), misses.usage)

    def entries_to_store(self, misses: Embeddings) -> list[tuple[bytes, bytes]]:
        """Return the keys and values to store from the answer to `misses`."""
        new = dict(zip(self.misses.inputs if self.misses else (), misses.vectors, strict=True))
        keys = dict(zip(self.request.inputs, self.keys, strict=True))
        return [(keys[text], _pack(misses.model, vector)) for text, vector in new.items()]

    def _pairs(self) -> Sequence[tuple[str | tuple[int, ...], tuple[str, tuple[float, ...]] | None]]:
        return list(zip(self.request.inputs, self.cached, strict=True))

    def _model(self, misses: Embeddings | None) -> str:
        return misses.model if misses else next((hit[0] for hit in self.cached if hit), "")


def embedding_keys(site: str, request: EmbeddingRequest) -> tuple[bytes, ...] | None:
    """Return the key of each input's vector; None if one cannot be encoded."""
    inputs: tuple[Any, ...] = request.inputs
    keys = [answer_key(site, replace(request, inputs=(text,))) for text in inputs]
    return tuple(key for key in keys if key) if None not in keys else None


def to_embedding_cache_result(
    request: EmbeddingRequest, keys: Sequence[bytes], values: Sequence[bytes | None]
) -> EmbeddingCacheResult:
    """Decode the values of the keys. Vectors of two models are misses: the route was changed between them."""
    result = EmbeddingCacheResult(request, tuple(keys), tuple(map(_unpack, values)))
    return result if len({hit[0] for hit in result.cached if hit}) < 2 else result.without_hits()


def _pack(model: str, vector: tuple[float, ...]) -> bytes:
    # Doubles, so that every JSON number is sent on exactly as it was received.
    return msgspec.msgpack.encode((model, struct.pack(f"<{len(vector)}d", *vector)))


def _unpack(value: bytes | None) -> tuple[str, tuple[float, ...]] | None:
    if value is None:
        return None
    try:
        model, packed = msgspec.msgpack.decode(value, type=tuple[str, bytes])
        return model, struct.unpack(f"<{len(packed) // 8}d", packed)
    except (msgspec.DecodeError, UnicodeError, struct.error):
        return None
