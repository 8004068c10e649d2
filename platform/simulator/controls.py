"""Controls: how a request selects the simulator's behaviour.

By header, one for each control (hyphens and underscores are the same):

    x-sim-ttft-ms: 200
    x-sim-outcomes: 503,cut,ok

or as a suffix of the model's name, after an `@`, separated by commas; a control without a value is switched on:

    gpt-4o-mini@status=503,times=1
    claude-haiku-4-5@ttft_ms=200,drop_done
    gpt-4o@outcomes=429|429|ok          (in the name, items of a list are separated by `|`)

A header takes precedence over the name. A *delta* is one piece of streamed text or tool arguments.
An unknown control or an invalid value is answered with 400.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from simulator.errors import ApiError
from simulator.faults import BreakKind, BrokenResponse, ErrorStatus, Fault, HtmlErrorPage, parse_faults

PREFIX = b"x-sim-"
MEGABYTE = 1024 * 1024

Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Milliseconds = Annotated[float, Meta(ge=0)]


def described(text: str) -> Meta:
    return Meta(description=text)


class Controls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every control with its meaning; with the defaults the simulator answers immediately and without faults."""

    ttft_ms: Annotated[Milliseconds, described("wait this long before the answer")] = 0
    early_headers: Annotated[bool, described("send a stream's headers before that wait, not after it")] = False
    inter_token_ms: Annotated[Milliseconds, described("wait this long before every delta but the first")] = 0
    profile: Annotated[
        Literal["litellm", "onthe"] | None,
        described("a pace: litellm = 31 events, the first after 10 ms, 1 ms apart; onthe = 64 deltas, 20 ms apart"),
    ] = None

    tokens: Annotated[
        Count | None, described("tokens in the answer's text, exactly (fewer if the request limits them)")
    ] = None
    deltas: Annotated[Annotated[int, Meta(ge=1)] | None, described("number of deltas of the streamed text")] = None
    events: Annotated[
        Annotated[int, Meta(ge=1)] | None, described("total number of events of a stream, if the answer is text only")
    ] = None
    tool_calls: Annotated[Count | None, described("number of tool calls in the answer, if tools are offered")] = None
    reasoning_tokens: Annotated[Count, described("additional output tokens, reported as reasoning")] = 0
    cached_tokens: Annotated[Count, described("tokens of the prompt, reported as read from the cache")] = 0
    cache_write_tokens: Annotated[Count, described("tokens of the prompt, reported as written to the cache")] = 0
    finish: Annotated[str | None, described("the finish reason, e.g. content_filter or refusal")] = None
    context: Annotated[Annotated[int, Meta(ge=1)] | None, described("the model's context window, in tokens")] = None
    stable_ids: Annotated[
        bool, described("ids and times depend on the request alone: the same body, the same bytes")
    ] = False

    status: Annotated[Annotated[int, Meta(ge=300, le=599)] | None, described("answer with this error status")] = None
    error_code: Annotated[str | None, described("the error's code (details.error_code or type for Anthropic)")] = None
    error_message: Annotated[str | None, described("the error's message")] = None
    retry_after: Annotated[Annotated[float, Meta(ge=0)] | None, described("Retry-After of an error, in seconds")] = None
    html_502: Annotated[bool, described("answer 502 with a proxy's HTML page")] = False
    cut_after_n: Annotated[
        Count | None, described("close the connection after this many deltas; 0 = before any byte")
    ] = None
    cut_after_events: Annotated[
        Count | None, described("close a stream's connection after this many events of any kind")
    ] = None
    cut: Annotated[Literal["fin", "rst"], described("how to close it: an orderly FIN or a reset")] = "fin"
    stall_after_n: Annotated[Count | None, described("stall after this many deltas; 0 = before any byte")] = None
    stall_ms: Annotated[Milliseconds | None, described("how long to stall; without it, forever")] = None
    error_after_n: Annotated[Count | None, described("send an error frame after this many deltas")] = None
    times: Annotated[Count | None, described("limit the faults above to this many attempts of the same body")] = None
    outcomes: Annotated[
        str | None,
        described("outcomes of the next calls of this key and model, e.g. 429,503:2,cut:3,rst,stall,html_502,ok"),
    ] = None
    overload: Annotated[
        Percent, described("percentage of calls that get an overload error; decided by body and attempt, so repeatable")
    ] = 0
    rate_limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        described("requests per minute for this key and model, with matching headers"),
    ] = None
    token_limit: Annotated[
        Annotated[int, Meta(ge=1)] | None, described("tokens per minute for this key and model, with matching headers")
    ] = None

    drop_usage: Annotated[bool, described("omit usage")] = False
    drop_done: Annotated[bool, described("end a stream cleanly, but without its last event ([DONE], message_stop)")] = (
        False
    )
    split_frames: Annotated[
        bool, described("split every frame over two TCP writes, within a character if possible")
    ] = False
    slow_loris: Annotated[Milliseconds, described("send the response's headers byte by byte, this many ms apart")] = 0
    duplicate_tool_index: Annotated[bool, described("parallel tool calls all carry the index of the first")] = False
    ping_every: Annotated[Count, described("send a ping after every n-th delta")] = 0
    obfuscation: Annotated[bool, described("an `obfuscation` field in every chunk, as OpenAI sends it")] = False
    wrong_content_type: Annotated[
        str | None, described("send this content type instead of the right one (no value: text/plain)")
    ] = None
    huge_line: Annotated[Count, described("send one line of this many bytes (no value: 1 MB)")] = 0

    def faults(self) -> tuple[Fault, ...]:
        """Parse an outcome list. Raises ValueError for an unknown word."""
        return parse_faults(self.outcomes or "")

    def fault(self) -> Fault | None:
        """Return the fault that a control names directly, if any."""
        if self.status is not None:
            return ErrorStatus(self.status, self.retry_after)
        if self.html_502:
            return HtmlErrorPage()
        if self.cut_after_events is not None:
            return BrokenResponse(self._cut, self.cut_after_events, counts_events=True)
        if self.cut_after_n is not None:
            return BrokenResponse(self._cut, self.cut_after_n)
        if self.stall_after_n is not None:
            return BrokenResponse(BreakKind.STALL, self.stall_after_n)
        if self.error_after_n is not None:
            return BrokenResponse(BreakKind.ERROR, self.error_after_n)
        return None

    @property
    def _cut(self) -> BreakKind:
        return BreakKind.RST if self.cut == "rst" else BreakKind.CUT


DEFAULTS = Controls()

#: What a control without a value means, where that is not simply "true".
IMPLIED_VALUES = {"wrong_content_type": "text/plain; charset=utf-8", "huge_line": str(MEGABYTE)}

PROFILES: dict[str, dict[str, str]] = {
    "litellm": {"ttft_ms": "10", "inter_token_ms": "1", "events": "31", "tokens": "64"},
    "onthe": {"inter_token_ms": "20", "deltas": "64", "tokens": "64"},
}


def controls_for(model: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, Controls]:
    """Return the model's own name, and the controls of name and headers. Raises `ApiError` for invalid ones."""
    settings = tuple((name, value) for name, value in headers if name.startswith(PREFIX))
    if not settings and "@" not in model:
        return model, DEFAULTS
    return _parse_controls(model, settings)


def describe_controls() -> dict[str, str]:
    """The name of every control and what it does."""
    hints = get_type_hints(Controls, include_extras=True)
    return {name: _description(hints[name]) for name in Controls.__struct_fields__}


@lru_cache(maxsize=1024)
def _parse_controls(model: str, headers: tuple[tuple[bytes, bytes], ...]) -> tuple[str, Controls]:
    name, _, suffix = model.partition("@")
    settings = _from_suffix(suffix) | _from_headers(headers)
    try:
        controls = msgspec.convert(_with_profile(settings), Controls, strict=False)
        controls.faults()
    except ValueError as error:  # msgspec.ValidationError is one
        raise ApiError(400, f"Simulator control: {error}", code="invalid_control") from error
    return name, controls


def _from_suffix(suffix: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in suffix.split(",") if pair.strip())
    return dict(_name_and_value(name, value) for name, _, value in pairs)


def _from_headers(headers: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    return dict(
        _name_and_value(name.removeprefix(PREFIX).decode("latin-1"), value.decode("latin-1")) for name, value in headers
    )


def _name_and_value(name: str, value: str) -> tuple[str, str]:
    name = name.strip().lower().replace("-", "_")
    return name, value.strip() or IMPLIED_VALUES.get(name, "true")


def _with_profile(settings: Mapping[str, str]) -> dict[str, str]:
    return {**PROFILES.get(settings.get("profile", ""), {}), **settings}


def _description(hint: Any) -> str:
    return next(note.description for note in hint.__metadata__ if isinstance(note, Meta) and note.description)
