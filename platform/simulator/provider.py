"""The simulated provider: what it answers to one call, and what goes wrong with it."""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from simulator import chat_reply, messages_reply
from simulator.answering import Answered, answer_chat, answer_messages
from simulator.calls import INFERENCE, Call, Endpoint, Surface, hash_of_key, key_of, surface_for
from simulator.catalogue import is_missing
from simulator.checks import is_overloaded, refuse_key, refuse_size, refuse_surface
from simulator.compose import Usage
from simulator.controls import DEFAULTS, Controls, controls_for
from simulator.decode import peek
from simulator.embeddings import embeddings
from simulator.errors import Dialect, RateLimited, Refusal, error_body, error_frame, overloaded, retry_after_of
from simulator.faults import FINE, Break, Ending, Fault, Html502, Refuse
from simulator.headers import response_headers, retry_headers
from simulator.journal import Entry, Journal
from simulator.limits import UNLIMITED, Limits, Standing
from simulator.listing import list_models, missing_model, one_model
from simulator.messages_request import read_count, refuse_version
from simulator.replies import EVENT_STREAM, JSON, Flow, Headers, Reply, Stamp, Whole
from simulator.scripts import Scripts

#: The moment of every answer whose ids are to be stable.
STABLE_CREATED = 1_795_200_000

HTML = b"text/html"
HTML_502 = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One call on its way through the provider."""

    call: Call
    surface: Surface
    key: bytes
    entry: Entry
    #: The model as it was asked for, controls and all.
    asked_model: str
    #: A reading of `time.perf_counter`.
    started: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent, and what is to go wrong meanwhile."""

    reply: Reply
    fault: Fault
    controls: Controls


class Provider:
    """Holds what outlives a call: the journal, the scripts, the rate limits."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.scripts = Scripts()
        self.limits = Limits()
        # Ids of two runs of the simulator must not be the same.
        self._run = f"{secrets.randbits(32):08x}"

    def receive(self, call: Call) -> Visit:
        """Put the call down in the journal before anything is made of it."""
        started = time.perf_counter()
        surface = surface_for(call)
        asked_model, stream = peek(call.body) if call.body else ("", False)
        asked_model = surface.name or asked_model
        key = key_of(surface.dialect, call.headers)
        body_sha256 = sha256(call.body).hexdigest()
        seq = self.journal.next_seq()
        entry = Entry(
            seq=seq,
            id=f"req_{self._run}{seq:024x}",
            dialect=surface.dialect,
            path=call.path,
            model=asked_model.partition("@")[0],
            key_hash=hash_of_key(key),
            body_sha256=body_sha256,
            client_request_id=call.header(b"x-client-request-id"),
            idempotency_key=call.header(b"idempotency-key"),
            stream=stream,
            attempt=self.journal.attempt_of(body_sha256),
            started_at=time.time(),
        )
        self.journal.start(entry)
        return Visit(call, surface, key, entry, asked_model, started)

    def plan(self, visit: Visit) -> Plan:
        """Decide what the caller gets."""
        try:
            model, controls = controls_for(visit.asked_model, visit.call.raw_headers)
        except Refusal as refusal:
            return Plan(_refused(refusal, visit, DEFAULTS), FINE, DEFAULTS)
        try:
            return self._plan(visit, model, controls)
        except Refusal as refusal:
            return Plan(_refused(refusal, visit, controls), FINE, controls)

    def _plan(self, visit: Visit, model: str, controls: Controls) -> Plan:
        endpoint = refuse_surface(visit.surface, visit.call)
        refuse_key(visit.surface.dialect, visit.key)
        if endpoint not in INFERENCE:
            return Plan(_listing(endpoint, visit, controls), FINE, controls)
        if is_missing(model):
            raise missing_model(visit.surface.dialect, model)
        fault = self._fault(visit, controls)
        match fault:
            case Refuse(status, retry_after):
                raise with_error_controls(Refusal(status, retry_after=retry_after), controls)
            case Html502():
                return Plan(Whole(502, _headers(visit, controls, HTML), HTML_502), FINE, controls)
            case Break(Ending.ERROR) if not visit.entry.stream:
                raise with_error_controls(Refusal(500), controls)
            case _:
                return Plan(self._answer(endpoint, visit, model, controls), fault, controls)

    def _fault(self, visit: Visit, controls: Controls) -> Fault:
        """The script's next outcome, else what the controls ask for."""
        entry = visit.entry
        scripted = self.scripts.next(entry.model, entry.key_hash)
        if scripted is None and controls.outcomes:
            scripted = self.scripts.step(entry.model, entry.key_hash, controls.faults())
        if scripted is not None:
            return scripted
        direct = controls.fault()
        if direct is not None and (controls.times is None or entry.attempt <= controls.times):
            return direct
        if is_overloaded(entry.body_sha256, entry.attempt, controls.overload):
            return Refuse(overloaded(visit.surface.dialect).status)
        return FINE

    def _answer(self, endpoint: Endpoint, visit: Visit, model: str, controls: Controls) -> Reply:
        body = visit.call.body
        match endpoint:
            case Endpoint.EMBEDDINGS:
                data, usage = embeddings(body, model, drop_usage=controls.drop_usage)
                standing = self._admit(visit, model, controls, usage.input_tokens)
                return _whole(data, visit, controls, standing, usage)
            case Endpoint.COUNT_TOKENS:
                asked = read_count(body, model, refuse_version(visit.call.header(b"anthropic-version")))
                return _whole(msgspec.json.encode({"input_tokens": asked.input_tokens}), visit, controls)
            case Endpoint.MESSAGES:
                version = refuse_version(visit.call.header(b"anthropic-version"))
                answered = answer_messages(body, model, controls, version)
            case _:
                answered = answer_chat(body, model, controls)
        asked = answered.asked
        standing = self._admit(visit, model, controls, asked.input_tokens + (asked.max_tokens or 0))
        refuse_size(asked, visit.surface.dialect, controls)
        return self._inference(answered, visit, controls, standing)

    def _inference(self, answered: Answered, visit: Visit, controls: Controls, standing: Standing) -> Reply:
        stamp = self._stamp(visit, controls)
        visit.entry.answer_id = answer_id(visit.surface.dialect, stamp)
        if answered.asked.stream:
            return _flow(answered, stamp, visit, controls, standing)
        asked, answer = answered.asked, answered.answer
        if visit.surface.dialect == Dialect.ANTHROPIC:
            data = messages_reply.message(asked, answer, stamp, controls)
        else:
            data = chat_reply.completion(asked, answer, stamp, visit.surface.dialect, controls)
        return _whole(data, visit, controls, standing, answer.usage)

    def _admit(self, visit: Visit, model: str, controls: Controls, tokens: int) -> Standing:
        """Charge the caller's rate limits. Refusal if they are used up."""
        if controls.rate_limit is None and controls.token_limit is None:
            return UNLIMITED
        standing = self.limits.admit(
            visit.entry.key_hash,
            model,
            tokens,
            rate_limit=controls.rate_limit,
            token_limit=controls.token_limit,
            now=time.monotonic(),
        )
        if standing.wait:
            raise RateLimited(standing, model)
        return standing

    def _stamp(self, visit: Visit, controls: Controls) -> Stamp:
        entry = visit.entry
        if controls.stable_ids:
            return Stamp(entry.body_sha256[:29], STABLE_CREATED)
        # The number comes first: tool call ids keep only the beginning.
        return Stamp(f"{entry.seq:010x}{self._run * 3}"[:29], int(entry.started_at))


def answer_id(dialect: Dialect, stamp: Stamp) -> str:
    return messages_reply.message_id(stamp) if dialect == Dialect.ANTHROPIC else chat_reply.completion_id(stamp)


def with_error_controls(refusal: Refusal, controls: Controls) -> Refusal:
    """The refusal in the words the controls ask for."""
    return Refusal(
        refusal.status,
        controls.error_message,
        code=controls.error_code,
        retry_after=controls.retry_after if refusal.retry_after is None else refusal.retry_after,
    )


def _listing(endpoint: Endpoint, visit: Visit, controls: Controls) -> Whole:
    surface = visit.surface
    if surface.dialect == Dialect.ANTHROPIC:
        refuse_version(visit.call.header(b"anthropic-version"))
    if endpoint == Endpoint.MODEL:
        return _whole(one_model(surface.dialect, surface.name), visit, controls)
    return _whole(list_models(surface.dialect, visit.call.query), visit, controls)


def _whole(
    data: bytes, visit: Visit, controls: Controls, standing: Standing = UNLIMITED, usage: Usage | None = None
) -> Whole:
    # White space before a JSON value is nothing, so the line may be as long as it likes.
    data = b" " * controls.huge_line + data
    tells_usage = usage is not None and not controls.drop_usage
    return Whole(200, _headers(visit, controls, JSON, standing), data, usage, tells_usage)


def _flow(answered: Answered, stamp: Stamp, visit: Visit, controls: Controls, standing: Standing) -> Flow:
    dialect = visit.surface.dialect
    asked, answer, steps = answered.asked, answered.answer, answered.steps
    if dialect == Dialect.ANTHROPIC:
        frames = messages_reply.events(asked, answer, steps, stamp, controls)
    else:
        frames = chat_reply.chunks(asked, answer, steps, stamp, dialect, controls)
    headers = [*_headers(visit, controls, EVENT_STREAM, standing), (b"cache-control", b"no-cache")]
    failure = overloaded(dialect) if dialect == Dialect.ANTHROPIC else Refusal(500)
    failure = with_error_controls(failure, controls)
    return Flow(headers, frames, error_frame(dialect, failure, visit.entry.id), answer.usage)


def _refused(refusal: Refusal, visit: Visit, controls: Controls) -> Whole:
    body = error_body(visit.surface.dialect, refusal, visit.entry.id)
    standing = refusal.standing if isinstance(refusal, RateLimited) else UNLIMITED
    headers = [*_headers(visit, controls, JSON, standing), *retry_headers(retry_after_of(refusal))]
    if 300 <= refusal.status < 400:
        headers.append((b"location", b"/v1/elsewhere"))
    return Whole(refusal.status, headers, body)


def _headers(visit: Visit, controls: Controls, content_type: bytes, standing: Standing = UNLIMITED) -> Headers:
    if controls.wrong_content_type is not None:
        content_type = controls.wrong_content_type.encode("latin-1", "replace")
    headers = response_headers(visit.surface.dialect, visit.entry.id, standing, visit.started)
    return [(b"content-type", content_type), *headers]
