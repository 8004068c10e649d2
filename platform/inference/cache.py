"""Under which key an answer is kept, and how vectors are. Pure; exact: only the same request gets the same answer.

A chat's answer is kept as it was written for its caller, so its wire is a part of the key. Vectors are kept one by
one: of a list of texts only those are asked for that nobody has asked for before.
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

#: Another form of what is kept takes another number: what was kept before is then not found.
KEY_VERSION = b"2"

#: How an answer is delivered, not what it says.
DELIVERY_FIELDS = ("stream", "stream_options")

_encoder = msgspec.json.Encoder(order="deterministic")


def answer_key(site: str, request: InferenceRequest, wire: str = "") -> bytes | None:
    """Return the key of a request's answer: 32 bytes. None where the request cannot be written down.

    Two bodies that mean the same have one key: the order of names and white space in them do not matter.
    """
    try:
        canonical = _encoder.encode(_canonical_parts(request))
    except (UnicodeError, RecursionError, ValueError):
        return None
    return hashlib.sha256(b"\0".join((KEY_VERSION, site.encode(), wire.encode(), canonical))).digest()


def _canonical_parts(request: InferenceRequest) -> Any:
    """Return all that an answer may depend on: where it is known, what was sent, every field of it."""
    if isinstance(request, ChatRequest) and request.original is not None:
        return (
            request.model,
            request.max_tokens,
            request.original.dialect,
            request.original.headers,
            _fields(request.original),
        )
    return request


def _fields(sent: OriginalRequest) -> dict[str, Any]:
    return {name: msgspec.json.decode(value) for name, value in sent.fields.items() if name not in DELIVERY_FIELDS}


@dataclass(frozen=True)
class EmbeddingCacheResult:
    """An embedding request, and what is known of its answer."""

    request: EmbeddingRequest
    #: Of each input. No two sites share one.
    keys: tuple[bytes, ...]
    #: What was found under them: the provider's name of the model, and the vector.
    known: tuple[tuple[str, tuple[float, ...]] | None, ...]

    @cached_property
    def misses(self) -> EmbeddingRequest | None:
        """What has to be asked: each unknown input once. None if everything is known."""
        unknown: dict[Any, None] = dict.fromkeys(text for text, known in self._pairs() if known is None)
        return replace(self.request, inputs=tuple(unknown)) if unknown else None

    def is_model_mismatch(self, misses: Embeddings) -> bool:
        """Say whether what is known is of another model than the rest: such vectors have nothing in common."""
        return any(known[0] != misses.model for known in self.known if known)

    def without_hits(self) -> "EmbeddingCacheResult":
        """Return the same request, with nothing known of its answer."""
        return EmbeddingCacheResult(self.request, self.keys, (None,) * len(self.keys))

    def answer(self, misses: Embeddings | None) -> Embeddings:
        """Return the whole answer, with the usage of `misses`: what is known costs nothing."""
        if self.misses is None:
            return Embeddings(self._model(misses), tuple(known[1] for known in self.known if known), Usage())
        if misses is None or len(misses.vectors) != len(self.misses.inputs):
            raise BadResponse("The provider's answer does not hold a vector for each input.")
        if len(self.misses.inputs) == len(self.request.inputs):
            return misses  # nothing was known, so this is the provider's answer, byte for byte
        new = dict(zip(self.misses.inputs, misses.vectors, strict=True))
        vectors = (known[1] if known else new[text] for text, known in self._pairs())
        return Embeddings(self._model(misses), tuple(vectors), misses.usage)

    def entries_to_store(self, misses: Embeddings) -> list[tuple[bytes, bytes]]:
        """Return under which keys to keep what of an answer to `misses`."""
        new = dict(zip(self.misses.inputs if self.misses else (), misses.vectors, strict=True))
        keys = dict(zip(self.request.inputs, self.keys, strict=True))
        return [(keys[text], _pack(misses.model, vector)) for text, vector in new.items()]

    def _pairs(self) -> Sequence[tuple[str | tuple[int, ...], tuple[str, tuple[float, ...]] | None]]:
        return list(zip(self.request.inputs, self.known, strict=True))

    def _model(self, misses: Embeddings | None) -> str:
        return misses.model if misses else next((known[0] for known in self.known if known), "")


def embedding_keys(site: str, request: EmbeddingRequest) -> tuple[bytes, ...] | None:
    """Return the key of each input's vector; None where one cannot be written down."""
    inputs: tuple[Any, ...] = request.inputs
    keys = [answer_key(site, replace(request, inputs=(text,))) for text in inputs]
    return tuple(key for key in keys if key) if None not in keys else None


def to_embedding_cache_result(
    request: EmbeddingRequest, keys: Sequence[bytes], found: Sequence[bytes | None]
) -> EmbeddingCacheResult:
    """Take in what was found under the keys. Of two models' vectors it is nothing: a route was changed meanwhile."""
    all_known = EmbeddingCacheResult(request, tuple(keys), tuple(map(_unpack, found)))
    return all_known if len({known[0] for known in all_known.known if known}) < 2 else all_known.without_hits()


def _pack(model: str, vector: tuple[float, ...]) -> bytes:
    # Doubles: a number that came as JSON is to go out as it came.
    return msgspec.msgpack.encode((model, struct.pack(f"<{len(vector)}d", *vector)))


def _unpack(kept: bytes | None) -> tuple[str, tuple[float, ...]] | None:
    if kept is None:
        return None
    try:
        model, packed = msgspec.msgpack.decode(kept, type=tuple[str, bytes])
        return model, struct.unpack(f"<{len(packed) // 8}d", packed)
    except (msgspec.DecodeError, UnicodeError, struct.error):
        return None
