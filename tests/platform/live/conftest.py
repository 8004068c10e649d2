"""Live requests without HTTP: a runtime, a caller, and a writer that writes plain text instead of a wire format."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.conf import settings
from redis import Redis

from core.ids import new_uuid, to_public
from inference.routing import Target
from live.admit import AdmittedRequest, admit_request
from live.request import Caller, LiveRequest
from live.runtime import LiveRuntime, close_live_runtime, live_runtime
from metering import buffer
from metering.models import UsageEvent
from providers.types import (
    Burst,
    ChatMessage,
    ChatRequest,
    Completion,
    Embeddings,
    InferenceRequest,
    InferenceResponse,
    Role,
    TextDelta,
    TextPart,
)
from streams.writer import EventLogWriter
from tenants.authentication import AuthMethod, Identity
from tenants.credentials import NewSite, create_site
from tests.api.live.conftest import _nothing_is_left as _nothing_is_left
from tests.api.live.conftest import simulator as simulator
from tests.api.live.conftest import simulator_process as simulator_process
from tests.factories import make_provider, make_route
from tests.simulator_process import SimulatorProcess


class TextWriter:
    """A `ResponseWriter` whose wire format is the text of the answer; it notes what it was called with."""

    def __init__(self, event_log: EventLogWriter | None = None) -> None:
        self._event_log = event_log
        self.targets: list[Target] = []
        self.text = ""
        self.errors: list[BaseException] = []

    def encode_answer(self, answer: InferenceResponse, target: Target) -> bytes:
        self.targets.append(target)
        match answer:
            case Completion():
                return answer.text.encode()
            case Embeddings():
                return str(len(answer.vectors)).encode()

    def start(self, target: Target) -> None:
        self.targets.append(target)

    def events(self, burst: Burst) -> None:
        text = "".join(event.text for event in burst.events if isinstance(event, TextDelta))
        self.text += text
        if text:
            self._append(text.encode())

    def continued(self, target: Target) -> None:
        self.targets.append(target)

    def answer(self, body: bytes) -> None:
        self.text = body.decode()
        self._append(body)

    def error(self, error: BaseException) -> None:
        self.errors.append(error)
        self._append(type(error).__name__.encode())

    def _append(self, data: bytes) -> None:
        assert self._event_log is not None
        self._event_log.append([("", data)])


class OpenWriters:
    """A `WriterFactory` that keeps the writers it made."""

    def __init__(self) -> None:
        self.made: list[TextWriter] = []

    def __call__(self, event_log: EventLogWriter) -> TextWriter:
        self.made.append(TextWriter(event_log))
        return self.made[-1]

    @property
    def only(self) -> TextWriter:
        (writer,) = self.made
        return writer


@pytest.fixture
def make_writer() -> OpenWriters:
    return OpenWriters()


@pytest.fixture
def new_site(transactional_db: None, simulator: SimulatorProcess) -> NewSite:
    """A site that may call the models `chat`, `slow` and `embed`."""
    provider = make_provider(base_url=simulator.openai_url)
    make_route("chat", (provider, "gpt-4o-mini"))
    make_route("slow", (provider, "gpt-4o-mini@deltas=20,inter_token_ms=25"))
    make_route("embed", (provider, "text-embedding-3-small"))
    return create_site("Bakery", "bakery")


@pytest.fixture
async def runtime(new_site: NewSite) -> AsyncIterator[LiveRuntime]:
    yield await live_runtime(server_waits=True)
    await close_live_runtime()


def caller_of(new_site: NewSite, *, nonce: bytes | None = None, token_id: str | None = None) -> Caller:
    return Caller(Identity(new_site.site, AuthMethod.API_KEY, "key_1", token_id=token_id), nonce)


def chat(model: str = "chat", text: str = "Hello") -> ChatRequest:
    return ChatRequest(model, (ChatMessage(Role.USER, (TextPart(text),)),))


def live_request(
    new_site: NewSite, request: InferenceRequest | None = None, *, caller: Caller | None = None, **fields: Any
) -> LiveRequest:
    request = request or chat()
    return LiveRequest(
        to_public("req", new_uuid()),
        caller or caller_of(new_site),
        request,
        wire_format="text",
        body_hash=hashlib.sha256(repr(request).encode()).digest(),
        **fields,
    )


async def admitted(runtime: LiveRuntime, request: LiveRequest) -> AdmittedRequest:
    """Admit a request that nothing stops."""
    found = await admit_request(runtime, request)
    assert isinstance(found, AdmittedRequest)
    return found


async def usage_of(runtime: LiveRuntime, new_site: NewSite) -> list[UsageEvent]:
    """The site's usage events, once its requests are settled."""
    await runtime.leases.wait_until_empty(20)
    return await runtime.threads.run(_drained_usage, new_site)


def _drained_usage(new_site: NewSite) -> list[UsageEvent]:
    with Redis.from_url(settings.REDIS_URL) as server:
        buffer.drain(server)
    return list(UsageEvent.objects.filter(site=new_site.site).order_by("id"))
