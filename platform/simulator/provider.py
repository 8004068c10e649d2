"""The simulated provider: decides the response to one call and the fault that is applied to it."""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from simulator.answer_cache import AnsweredRequest, answer_chat, answer_messages
from simulator.anthropic_messages import response as messages_response
from simulator.anthropic_messages.request import check_version, read_count_tokens
from simulator.calls import INFERENCE, ApiSurface, Call, Endpoint, api_key_of, hash_api_key, surface_for
from simulator.catalogue import is_missing
from simulator.compose import Usage
from simulator.controls import DEFAULTS, Controls, controls_for
from simulator.decode import peek_model_and_stream
from simulator.embeddings import create_embeddings
from simulator.errors import ApiError, Dialect, RateLimited, error_body, error_frame, overloaded_error, retry_after_of
from simulator.faults import NO_FAULT, BreakKind, BrokenResponse, ErrorStatus, Fault, HtmlErrorPage
from simulator.headers import response_headers, retry_headers
from simulator.journal import Journal, JournalEntry
from simulator.model_list import list_models, model_not_found, retrieve_model
from simulator.openai_chat import response as chat_response
from simulator.rate_limits import UNLIMITED, RateLimiter, RateLimitStatus
from simulator.request_checks import check_api_key, check_token_limits, is_overloaded, require_endpoint
from simulator.responses import (
    EVENT_STREAM,
    JSON,
    CompleteResponse,
    Headers,
    ResponseIdentity,
    SimulatedResponse,
    StreamedResponse,
)
from simulator.scripts import Scripts

#: The timestamp of every answer with stable ids.
STABLE_CREATED_UNIX_SECONDS = 1_795_200_000

HTML = b"text/html"
HTML_502 = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call on its way through the provider."""

    call: Call
    surface: ApiSurface
    key: bytes
    entry: JournalEntry
    #: The model as the request names it, including controls.
    requested_model: str
    #: A reading of `time.perf_counter`.
    started: float


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """The response to send and the fault to apply to it."""

    response: SimulatedResponse
    fault: Fault
    controls: Controls


class SimulatedProvider:
    """The state that is shared by all calls: the journal, the scripts and the rate limits."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.scripts = Scripts()
        self.limits = RateLimiter()
        # Ids must differ between two runs of the simulator.
        self._run_id = f"{secrets.randbits(32):08x}"

    def receive(self, call: Call) -> CallContext:
        """Enter the call in the journal before it is processed."""
        started = time.perf_counter()
        surface = surface_for(call)
        requested_model, stream = peek_model_and_stream(call.body) if call.body else ("", False)
        requested_model = surface.name or requested_model
        key = api_key_of(surface.dialect, call.headers)
        body_sha256 = sha256(call.body).hexdigest()
        seq = self.journal.next_seq()
        entry = JournalEntry(
            seq=seq,
            id=f"req_{self._run_id}{seq:024x}",
            dialect=surface.dialect,
            path=call.path,
            model=requested_model.partition("@")[0],
            key_hash=hash_api_key(key),
            body_sha256=body_sha256,
            client_request_id=call.header(b"x-client-request-id"),
            idempotency_key=call.header(b"idempotency-key"),
            stream=stream,
            attempt=self.journal.attempt_of(body_sha256),
            started_at=time.time(),
        )
        self.journal.start(entry)
        return CallContext(call, surface, key, entry, requested_model, started)

    def plan(self, context: CallContext) -> ResponsePlan:
        """Decide the response."""
        try:
            model, controls = controls_for(context.requested_model, context.call.raw_headers)
        except ApiError as api_error:
            return ResponsePlan(_error_response(api_error, context, DEFAULTS), NO_FAULT, DEFAULTS)
        try:
            return self._plan(context, model, controls)
        except ApiError as api_error:
            return ResponsePlan(_error_response(api_error, context, controls), NO_FAULT, controls)

    def _plan(self, context: CallContext, model: str, controls: Controls) -> ResponsePlan:
        endpoint = require_endpoint(context.surface, context.call)
        check_api_key(context.surface.dialect, context.key)
        if endpoint not in INFERENCE:
            return ResponsePlan(_models_response(endpoint, context, controls), NO_FAULT, controls)
        if is_missing(model):
            raise model_not_found(context.surface.dialect, model)
        fault = self._fault(context, controls)
        match fault:
            case ErrorStatus(status, retry_after):
                raise with_error_controls(ApiError(status, retry_after=retry_after), controls)
            case HtmlErrorPage():
                return ResponsePlan(
                    CompleteResponse(502, _headers(context, controls, HTML), HTML_502), NO_FAULT, controls
                )
            case BrokenResponse(BreakKind.ERROR) if not context.entry.stream:
                raise with_error_controls(ApiError(500), controls)
            case _:
                return ResponsePlan(self._answer(endpoint, context, model, controls), fault, controls)

    def _fault(self, context: CallContext, controls: Controls) -> Fault:
        """Return the next outcome of the script, or else the fault that the controls specify."""
        entry = context.entry
        scripted = self.scripts.next(entry.model, entry.key_hash)
        if scripted is None and controls.outcomes:
            scripted = self.scripts.next_in_list(entry.model, entry.key_hash, controls.faults())
        if scripted is not None:
            return scripted
        direct = controls.fault()
        if direct is not None and (controls.times is None or entry.attempt <= controls.times):
            return direct
        if is_overloaded(entry.body_sha256, entry.attempt, controls.overload):
            return ErrorStatus(overloaded_error(context.surface.dialect).status)
        return NO_FAULT

    def _answer(self, endpoint: Endpoint, context: CallContext, model: str, controls: Controls) -> SimulatedResponse:
        body = context.call.body
        match endpoint:
            case Endpoint.EMBEDDINGS:
                data, usage = create_embeddings(body, model, drop_usage=controls.drop_usage)
                rate_limit_status = self._admit(context, model, controls, usage.input_tokens)
                return _complete_response(data, context, controls, rate_limit_status, usage)
            case Endpoint.COUNT_TOKENS:
                request = read_count_tokens(body, model, check_version(context.call.header(b"anthropic-version")))
                return _complete_response(
                    msgspec.json.encode({"input_tokens": request.input_tokens}), context, controls
                )
            case Endpoint.MESSAGES:
                version = check_version(context.call.header(b"anthropic-version"))
                answered = answer_messages(body, model, controls, version)
            case _:
                answered = answer_chat(body, model, controls)
        request = answered.request
        rate_limit_status = self._admit(context, model, controls, request.input_tokens + (request.max_tokens or 0))
        check_token_limits(request, context.surface.dialect, controls)
        return self._inference(answered, context, controls, rate_limit_status)

    def _inference(
        self, answered: AnsweredRequest, context: CallContext, controls: Controls, rate_limit_status: RateLimitStatus
    ) -> SimulatedResponse:
        identity = self._identity(context, controls)
        context.entry.answer_id = answer_id(context.surface.dialect, identity)
        if answered.request.stream:
            return _streamed_response(answered, identity, context, controls, rate_limit_status)
        request, answer = answered.request, answered.answer
        if context.surface.dialect == Dialect.ANTHROPIC:
            data = messages_response.message(request, answer, identity, controls)
        else:
            data = chat_response.completion(request, answer, identity, context.surface.dialect, controls)
        return _complete_response(data, context, controls, rate_limit_status, answer.usage)

    def _admit(self, context: CallContext, model: str, controls: Controls, tokens: int) -> RateLimitStatus:
        """Charge the caller's rate limits. Raises `RateLimited` if they are exhausted."""
        if controls.rate_limit is None and controls.token_limit is None:
            return UNLIMITED
        rate_limit_status = self.limits.admit(
            context.entry.key_hash,
            model,
            tokens,
            rate_limit=controls.rate_limit,
            token_limit=controls.token_limit,
            now=time.monotonic(),
        )
        if rate_limit_status.wait_seconds:
            raise RateLimited(rate_limit_status, model)
        return rate_limit_status

    def _identity(self, context: CallContext, controls: Controls) -> ResponseIdentity:
        entry = context.entry
        if controls.stable_ids:
            return ResponseIdentity(entry.body_sha256[:29], STABLE_CREATED_UNIX_SECONDS)
        # The number comes first: tool call ids keep only the beginning.
        return ResponseIdentity(f"{entry.seq:010x}{self._run_id * 3}"[:29], int(entry.started_at))


def answer_id(dialect: Dialect, identity: ResponseIdentity) -> str:
    return (
        messages_response.message_id(identity)
        if dialect == Dialect.ANTHROPIC
        else chat_response.completion_id(identity)
    )


def with_error_controls(api_error: ApiError, controls: Controls) -> ApiError:
    """Return the error with the code and message that the controls specify."""
    return ApiError(
        api_error.status,
        controls.error_message,
        code=controls.error_code,
        retry_after=controls.retry_after if api_error.retry_after is None else api_error.retry_after,
    )


def _models_response(endpoint: Endpoint, context: CallContext, controls: Controls) -> CompleteResponse:
    surface = context.surface
    if surface.dialect == Dialect.ANTHROPIC:
        check_version(context.call.header(b"anthropic-version"))
    if endpoint == Endpoint.MODEL:
        return _complete_response(retrieve_model(surface.dialect, surface.name), context, controls)
    return _complete_response(list_models(surface.dialect, context.call.query), context, controls)


def _complete_response(
    data: bytes,
    context: CallContext,
    controls: Controls,
    rate_limit_status: RateLimitStatus = UNLIMITED,
    usage: Usage | None = None,
) -> CompleteResponse:
    # White space before a JSON value is ignored, so the line may have any length.
    data = b" " * controls.huge_line + data
    reports_usage = usage is not None and not controls.drop_usage
    return CompleteResponse(200, _headers(context, controls, JSON, rate_limit_status), data, usage, reports_usage)


def _streamed_response(
    answered: AnsweredRequest,
    identity: ResponseIdentity,
    context: CallContext,
    controls: Controls,
    rate_limit_status: RateLimitStatus,
) -> StreamedResponse:
    dialect = context.surface.dialect
    request, answer, steps = answered.request, answered.answer, answered.steps
    if dialect == Dialect.ANTHROPIC:
        frames = messages_response.events(request, answer, steps, identity, controls)
    else:
        frames = chat_response.chunks(request, answer, steps, identity, dialect, controls)
    headers = [*_headers(context, controls, EVENT_STREAM, rate_limit_status), (b"cache-control", b"no-cache")]
    failure = overloaded_error(dialect) if dialect == Dialect.ANTHROPIC else ApiError(500)
    failure = with_error_controls(failure, controls)
    return StreamedResponse(headers, frames, error_frame(dialect, failure, context.entry.id), answer.usage)


def _error_response(api_error: ApiError, context: CallContext, controls: Controls) -> CompleteResponse:
    body = error_body(context.surface.dialect, api_error, context.entry.id)
    rate_limit_status = api_error.rate_limit_status if isinstance(api_error, RateLimited) else UNLIMITED
    headers = [*_headers(context, controls, JSON, rate_limit_status), *retry_headers(retry_after_of(api_error))]
    if 300 <= api_error.status < 400:
        headers.append((b"location", b"/v1/elsewhere"))
    return CompleteResponse(api_error.status, headers, body)


def _headers(
    context: CallContext, controls: Controls, content_type: bytes, rate_limit_status: RateLimitStatus = UNLIMITED
) -> Headers:
    if controls.wrong_content_type is not None:
        content_type = controls.wrong_content_type.encode("latin-1", "replace")
    headers = response_headers(context.surface.dialect, context.entry.id, rate_limit_status, context.started)
    return [(b"content-type", content_type), *headers]
