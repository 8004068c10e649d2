"""Round trips: a payload that we send upstream, decoded as a caller's body, is the same request."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.dialects import anthropic, anthropic_upstream, openai, openai_upstream
from providers.tiers import Tier
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    ContentPart,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    ImagePart,
    OutputFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)

#: The machine may be busy: no deadline for one example, and not too many of them.
QUICK = settings(deadline=None, max_examples=40)

# What both dialects can express. No NUL, because the edge rejects it.
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
SCHEMAS = st.dictionaries(NAMES, st.one_of(st.integers(), st.booleans(), TEXTS, st.none()), max_size=3)
INPUTS = SCHEMAS.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))
UNIT = st.floats(0, 1)
MAYBE_UNIT = st.none() | UNIT

TEXT_PARTS: st.SearchStrategy[ContentPart] = st.builds(TextPart, TEXTS)
IMAGES: st.SearchStrategy[ContentPart] = st.one_of(
    st.just(ImagePart(url="https://x.test/a.png")), st.just(ImagePart(media_type="image/png", data="iVBORw=="))
)
USERS = st.builds(ChatMessage, st.just(Role.USER), st.lists(TEXT_PARTS | IMAGES, min_size=1, max_size=3).map(tuple))
SAYS = st.builds(ChatMessage, st.just(Role.ASSISTANT), st.tuples(TEXT_PARTS))


@st.composite
def tool_turns(draw: st.DrawFn) -> tuple[ChatMessage, ...]:
    """Tool calls, their results in any order, and the next user message."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    calls = tuple(ToolCall(f"call_{name}", name, draw(INPUTS)) for name in names)
    results = tuple(
        ChatMessage(Role.TOOL, draw(st.tuples(TEXT_PARTS)), tool_call_id=call.id)
        for call in draw(st.permutations(calls))
    )
    texts = draw(st.just(()) | st.tuples(TEXT_PARTS))
    return (ChatMessage(Role.ASSISTANT, texts, tool_calls=calls), *results, draw(USERS))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ChatMessage, ...]:
    system = draw(st.just(()) | st.tuples(st.builds(ChatMessage, st.just(Role.SYSTEM), st.tuples(TEXT_PARTS))))
    turns = draw(st.lists(st.one_of(st.tuples(USERS), st.tuples(SAYS), tool_turns()), max_size=3))
    return (*system, draw(USERS), *(message for turn in turns for message in turn))


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    tools = tuple(
        Tool(name, draw(st.none() | TEXTS), {"type": "object", **draw(SCHEMAS)}, draw(st.none() | st.booleans()))
        for name in draw(st.lists(NAMES, max_size=2, unique=True))
    )
    choices = [None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), *(_named(tool) for tool in tools)]
    return ChatRequest(
        model="a-model",
        messages=draw(conversations()),
        max_tokens=draw(st.integers(1, 2**31 - 1)),
        temperature=draw(MAYBE_UNIT),
        stop=tuple(draw(st.lists(TEXTS.filter(str.strip), max_size=4))),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)) if tools else None,
        reasoning_effort=draw(st.sampled_from([None, "low", "medium", "high", "xhigh", "max"])),
        user=draw(st.none() | TEXTS),
    )


def _named(tool: Tool) -> ToolChoice:
    return ToolChoice("named", tool.name)


FORMATS = st.one_of(
    st.none(),
    st.just(OutputFormat("text")),
    st.just(OutputFormat("json_object")),
    st.builds(OutputFormat, st.just("json_schema"), NAMES, st.none() | TEXTS, SCHEMAS, st.none() | st.booleans()),
)


@QUICK
@given(requests(), FORMATS, MAYBE_UNIT, st.none() | st.floats(-2, 2), st.none() | st.integers(-(2**63), 2**63 - 1))
def test_a_request_survives_a_round_trip_in_openai_s_dialect(
    request: ChatRequest, output: OutputFormat | None, top_p: float | None, penalty: float | None, seed: int | None
) -> None:
    request = replace(
        request,
        output_format=output,
        top_p=top_p,
        presence_penalty=penalty,
        frequency_penalty=penalty,
        seed=seed,
        parallel_tool_calls=False if request.tools else None,
    )

    assert openai.decode_chat(openai_upstream.to_payload(request)) == request


@QUICK
@given(requests(), st.none() | SCHEMAS)
def test_a_request_survives_a_round_trip_in_anthropic_s_dialect(
    request: ChatRequest, schema: dict[str, object] | None
) -> None:
    output = OutputFormat("json_schema", schema=schema, strict=True) if schema is not None else None
    request = replace(request, output_format=output)

    assert anthropic.decode_chat(anthropic_upstream.to_payload(request)) == request


@QUICK
@given(st.lists(TEXTS, min_size=1, max_size=3), st.none() | st.integers(1, 9), st.none() | TEXTS)
def test_an_embedding_request_survives_a_round_trip(texts: list[str], dimensions: int | None, user: str | None) -> None:
    request = EmbeddingRequest("a-model", tuple(texts), dimensions, user)

    assert openai.decode_embedding(openai_upstream.to_embedding_payload(request)) == request


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, written, rest, reasoning, text_tokens = (draw(st.integers(0, 1000)) for _ in range(5))
    return Usage(
        input_tokens=cached + written + rest,
        output_tokens=reasoning + text_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    calls = tuple(ToolCall(f"call_{name}", name, draw(INPUTS)) for name in draw(st.lists(NAMES, max_size=2)))
    return Completion(
        id=draw(NAMES),
        model="a-model",
        text=draw(TEXTS),
        finish_reason=FinishReason.TOOL_CALLS if calls else draw(st.sampled_from(FinishReason)),
        usage=draw(usages()),
        tool_calls=calls,
        reasoning=draw(st.just("") | TEXTS),
        tier=Tier.STANDARD,
    )


@QUICK
@given(completions())
def test_an_answer_survives_a_round_trip_in_openai_s_dialect(completion: Completion) -> None:
    body = json.dumps(openai.encode_completion(completion, created=1)).encode()

    assert openai_upstream.to_completion(body) == completion


@QUICK
@given(completions(), st.integers(0, 1000))
def test_an_answer_survives_a_round_trip_in_anthropic_s_dialect(completion: Completion, for_an_hour: int) -> None:
    assert completion.usage is not None
    usage = replace(completion.usage, cache_write_1h_tokens=min(for_an_hour, completion.usage.cache_write_tokens))
    completion = replace(completion, usage=usage)

    assert anthropic_upstream.to_completion(json.dumps(anthropic.encode_completion(completion)).encode()) == completion


@QUICK
@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3), max_size=3))
def test_vectors_survive_a_round_trip_in_both_encodings(vectors: list[list[float]]) -> None:
    embeddings = Embeddings("a-model", tuple(map(tuple, vectors)), Usage(5))
    finite = all(abs(number) != float("inf") for vector in vectors for number in vector)

    packed = json.dumps(openai.encode_embeddings(embeddings, "base64")).encode()
    assert openai_upstream.to_embeddings(packed, len(vectors)) == embeddings
    if finite:
        plain = json.dumps(openai.encode_embeddings(embeddings)).encode()
        assert openai_upstream.to_embeddings(plain, len(vectors)) == embeddings
