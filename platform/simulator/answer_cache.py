"""Turns the bytes of a request into its answer and caches it, for retries and benchmarks that repeat a body."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from simulator.anthropic_messages import response as messages_response
from simulator.anthropic_messages.request import read_messages
from simulator.compose import Answer, AnswerStep, compose, steps_of
from simulator.controls import Controls
from simulator.neutral_request import NeutralRequest
from simulator.openai_chat import response as chat_response
from simulator.openai_chat.request import read_chat

#: Largest body that is cached, in bytes, and the number of cached bodies.
MAX_CACHED_BODY_BYTES = 65_536
CACHE_SIZE = 256


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """The request, the answer, and the answer in pieces if it is to be streamed."""

    request: NeutralRequest
    answer: Answer
    steps: list[AnswerStep]


def answer_chat(body: bytes, model: str, controls: Controls) -> AnsweredRequest:
    return _cached(_answer_chat, body)(body, model, controls)


def answer_messages(body: bytes, model: str, controls: Controls, version: str) -> AnsweredRequest:
    return _cached(_answer_messages, body)(body, model, controls, version)


@lru_cache(maxsize=CACHE_SIZE)
def _answer_chat(body: bytes, model: str, controls: Controls) -> AnsweredRequest:
    request = read_chat(body, model)
    return _compose_answer(request, controls, chat_response.deltas_for(request, controls))


@lru_cache(maxsize=CACHE_SIZE)
def _answer_messages(body: bytes, model: str, controls: Controls, version: str) -> AnsweredRequest:
    request = read_messages(body, model, version)
    return _compose_answer(request, controls, messages_response.deltas_for(controls))


def _compose_answer(request: NeutralRequest, controls: Controls, deltas: int | None) -> AnsweredRequest:
    answer = compose(request, controls)
    return AnsweredRequest(request, answer, steps_of(answer, deltas) if request.stream else [])


def _cached(answer: Callable[..., AnsweredRequest], body: bytes) -> Callable[..., AnsweredRequest]:
    if len(body) <= MAX_CACHED_BODY_BYTES:
        return answer
    uncached: Callable[..., AnsweredRequest] = answer.__wrapped__  # type: ignore[attr-defined]
    return uncached
