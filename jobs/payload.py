"""Encodes and decodes a job's stored body and result, in all payload versions, from and to neutral types."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import BinaryField
from django.db.models.functions import Cast

from core.crypto import CryptoError, TamperedCiphertext, UnknownEncryptionKey
from jobs.errors import ErasedPayload, InvalidBody, UnreadablePayload
from jobs.models import Job, JobKind
from providers.dialects import anthropic, openai
from providers.invalid_request import InvalidRequest
from providers.token_estimation import estimate_input_tokens as estimate_tokens
from providers.types import Completion, InferenceRequest, InferenceResponse

#: The version that `encode_body` writes. A change of the format increments it, and adds a step to UPCASTERS.
PAYLOAD_VERSION = 1

#: The step at index n turns a payload of version n + 1 into one of version n + 2.
UPCASTERS: Sequence[Callable[[dict[str, Any]], dict[str, Any]]] = ()

PAYLOAD_FIELD = Job._meta.get_field("payload")

#: How many bodies are in memory while those of many jobs are read; each may have a quarter of a megabyte.
MAX_LOADED_BODIES = 10

#: The decoder of each kind of body.
DECODERS: Mapping[str, Callable[[Mapping[str, Any]], InferenceRequest]] = {
    JobKind.CHAT: openai.decode_chat,
    JobKind.MESSAGES: anthropic.decode_chat,
    JobKind.EMBEDDINGS: openai.decode_embedding,
}


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return the plaintext of the encrypted column."""
    return msgspec.json.encode(body)


def load_body(job: Job) -> dict[str, Any]:
    """Read the job's body from the database and return it in the current format.

    Raises:
        UnreadablePayload: it cannot be decrypted or decoded.
        ErasedPayload: it was erased.
    """
    try:
        clear = job.payload
    except CryptoError as error:
        raise UnreadablePayload from error
    if clear is None:
        # It may have been erased after the job was read.
        job.refresh_from_db(fields=["erased_at"])
        raise ErasedPayload(job.erased_at) if job.erased_at else UnreadablePayload
    return decode_body(clear, job.payload_version)


def decrypt_body(encrypted: bytes | None, version: int) -> dict[str, Any]:
    """Return a body from the bytes of the encrypted column.

    Raises:
        UnreadablePayload: it cannot be decrypted or decoded.
        UnknownEncryptionKey: it was encrypted with a key that this process does not have; another process may.
    """
    if encrypted is None:
        raise UnreadablePayload
    try:
        return decode_body(PAYLOAD_FIELD.decrypt(encrypted), version)
    except TamperedCiphertext as error:
        raise UnreadablePayload from error


def decode_body(clear: bytes, version: int) -> dict[str, Any]:
    """Return a body in the current format, in whichever version it was stored. Raises `UnreadablePayload`."""
    try:
        body = msgspec.json.decode(clear, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UnreadablePayload from error
    for upcast in UPCASTERS[version - 1 :]:
        body = upcast(body)
    return body


def to_request(kind: str, body: Mapping[str, Any]) -> InferenceRequest:
    """Translate a body into a neutral request.

    Raises:
        InvalidBody: it is not a valid request of its kind, or requests a stream.
    """
    if body.get("stream"):
        raise InvalidBody("A job's response is not streamed: remove `stream`.", "stream")
    try:
        return DECODERS[kind](body)
    except InvalidRequest as error:
        raise InvalidBody(error.message, error.param) from error


def encode_answer(kind: str, body: Mapping[str, Any], answer: InferenceResponse, created: int) -> bytes:
    """Return the answer as JSON in the wire format of the job's kind, with the encoding that its body requested."""
    if isinstance(answer, Completion) and answer.body:
        # Only the provider's own dialect can express it, so it is passed on unchanged.
        return answer.body
    return msgspec.json.encode(_to_wire(kind, body, answer, created))


def _to_wire(kind: str, body: Mapping[str, Any], answer: InferenceResponse, created: int) -> dict[str, Any]:
    if isinstance(answer, Completion):
        if kind == JobKind.MESSAGES:
            return anthropic.encode_completion(answer)
        return openai.encode_completion(answer, created=created)
    return openai.encode_embeddings(answer, body.get("encoding_format"))


def estimate_input_tokens(job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the estimated number of input tokens of these jobs, for calls whose usage was never reported."""
    jobs = Job.objects.filter(id__in=job_ids).annotate(encrypted=Cast("payload", BinaryField()))
    rows = jobs.values_list("id", "kind", "payload_version", "encrypted").iterator(chunk_size=MAX_LOADED_BODIES)
    return {job_id: _estimate(kind, encrypted, version) for job_id, kind, version, encrypted in rows}


def _estimate(kind: str, encrypted: memoryview | None, version: int) -> int:
    try:
        return estimate_tokens(to_request(kind, decrypt_body(None if encrypted is None else bytes(encrypted), version)))
    except (InvalidBody, UnreadablePayload, UnknownEncryptionKey):
        # It was accepted, so it has at least one. An unknown number must not prevent the sweep of the job.
        return 1
