"""From the bytes of a request to its answer. Whoever sends the same again, a retry or a bench, finds it ready."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from simulator import chat_reply, messages_reply
from simulator.asked import Asked
from simulator.chat_request import read_chat
from simulator.compose import Answer, Step, compose, steps_of
from simulator.controls import Controls
from simulator.messages_request import read_messages

#: Bodies up to this size are worth remembering, so many of them.
REMEMBERED_BYTES = 65_536
REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked, the answer, and the answer in pieces if it is to be streamed."""

    asked: Asked
    answer: Answer
    steps: list[Step]


def answer_chat(body: bytes, model: str, controls: Controls) -> Answered:
    return _remembered(_answer_chat, body)(body, model, controls)


def answer_messages(body: bytes, model: str, controls: Controls, version: str) -> Answered:
    return _remembered(_answer_messages, body)(body, model, controls, version)


@lru_cache(maxsize=REMEMBERED)
def _answer_chat(body: bytes, model: str, controls: Controls) -> Answered:
    asked = read_chat(body, model)
    return _answered(asked, controls, chat_reply.deltas_for(asked, controls))


@lru_cache(maxsize=REMEMBERED)
def _answer_messages(body: bytes, model: str, controls: Controls, version: str) -> Answered:
    asked = read_messages(body, model, version)
    return _answered(asked, controls, messages_reply.deltas_for(controls))


def _answered(asked: Asked, controls: Controls, deltas: int | None) -> Answered:
    answer = compose(asked, controls)
    return Answered(asked, answer, steps_of(answer, deltas) if asked.stream else [])


def _remembered(answer: Callable[..., Answered], body: bytes) -> Callable[..., Answered]:
    if len(body) <= REMEMBERED_BYTES:
        return answer
    forgetful: Callable[..., Answered] = answer.__wrapped__  # type: ignore[attr-defined]
    return forgetful
