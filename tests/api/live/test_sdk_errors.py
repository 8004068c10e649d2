"""The SDKs raise the error that their users expect for each failure, before and after the first token."""

import uuid
from dataclasses import astuple, dataclass, replace
from itertools import product
from typing import Any

import anthropic
import openai
import pytest
from pytest_django import DjangoDbBlocker

from inference.models import ProviderAccount, Route, RouteTarget
from tenants.credentials import create_site
from tenants.models import Limit, Site
from tests.api.live.sdks import SAYS, UPSTREAMS, Sdks, SdkSite, new_provider, on_both_servers
from tests.simulator_process import SimulatorProcess

pytestmark = pytest.mark.django_db

SDKS = ("openai", "anthropic")
WAYS = ("plain", "streamed")

#: What each SDK raises for a provider's status, and the status that it receives.
RAISED: dict[int, dict[str, tuple[str, int]]] = {
    status: {"openai": told_openai, "anthropic": told_anthropic}
    for status, told_openai, told_anthropic in [
        (400, ("BadRequestError", 400), ("BadRequestError", 400)),
        # The provider rejects the gateway's key, not the caller's.
        (401, ("InternalServerError", 503), ("ServiceUnavailableError", 503)),
        (403, ("InternalServerError", 503), ("ServiceUnavailableError", 503)),
        (404, ("NotFoundError", 404), ("NotFoundError", 404)),
        (409, ("InternalServerError", 502), ("InternalServerError", 502)),
        (413, ("APIStatusError", 413), ("ContentTooLargeError", 413)),
        (422, ("UnprocessableEntityError", 422), ("UnprocessableEntityError", 422)),
        (429, ("RateLimitError", 429), ("RateLimitError", 429)),
        (500, ("InternalServerError", 502), ("InternalServerError", 502)),
        (502, ("InternalServerError", 502), ("InternalServerError", 502)),
        (503, ("InternalServerError", 503), ("OverloadedError", 529)),
        (504, ("InternalServerError", 504), ("GatewayTimeoutError", 504)),
        (529, ("InternalServerError", 503), ("OverloadedError", 529)),
    ]
}
#: How an answer is cut, before the first token and after some.
CUT_BEFORE = "reset before a byte"
CUTS = {
    "closed in the middle": "cut_after_n=3",
    "reset in the middle": "cut_after_n=3,cut=rst",
    "an error in the middle": "error_after_n=3",
    "no last event": "drop_done",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request. Each has its own models, providers and keys, so that no open circuit breaker affects it."""

    server: str
    sdk: str
    upstream: str
    way: str

    def model(self, fault: str | int) -> str:
        return f"{fault}/{self.sdk}/{self.upstream}/{self.way}/{self.server}".replace(" ", "-")

    def ask(self, sdks: Sdks, model: str) -> str:
        """Return the answer's text."""
        return ask(sdks, self.sdk, model, streamed=self.way == "streamed")


CASES = [Case("uvicorn", *case) for case in product(SDKS, ("openai", "anthropic", "azure-dated"), WAYS)] + [
    Case("daphne", "openai", "anthropic", "plain"),
    Case("daphne", "openai", "openai", "streamed"),
    Case("daphne", "anthropic", "openai", "plain"),
    Case("daphne", "anthropic", "anthropic", "streamed"),
]


def each_of(cases: list[Case]) -> pytest.MarkDecorator:
    named = [pytest.param(case.server, case, id="-".join(astuple(case))) for case in cases]
    return pytest.mark.parametrize(("sdks", "case"), named, indirect=["sdks"])


def ask(sdks: Sdks, sdk: str, model: str, *, streamed: bool, **wanted: Any) -> str:
    parameters: Any = {"model": model, "messages": SAYS, "stream": streamed, **wanted}
    if sdk == "openai":
        answer: Any = sdks.openai.chat.completions.create(**parameters)
        if not streamed:
            return str(answer.choices[0].message.content)
        return "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
    answer = sdks.anthropic.messages.create(max_tokens=200, **parameters)
    if not streamed:
        return str(answer.content[0].text)
    return "".join(event.delta.text for event in answer if event.type == "content_block_delta")


def code_of(error: Any) -> str:
    """Return the error code, which each SDK stores elsewhere."""
    return str(error.code if isinstance(error, openai.APIError) else error.error_code)


def raised_by(case: Case, sdks: Sdks, model: str) -> Any:
    with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
        case.ask(sdks, model)
    return caught.value


@pytest.fixture(scope="module")
def faults(sdk_site: SdkSite, simulator_process: SimulatorProcess, django_db_blocker: DjangoDbBlocker) -> None:
    """Routes to models that fail in each way."""
    # With so long a Retry-After, the gateway reports it immediately instead of retrying.
    controls = {**{str(status): f"status={status},retry_after=30" for status in RAISED}, **CUTS}
    controls[CUT_BEFORE] = "cut_after_n=0,cut=rst"
    providers, routes, targets = [], [], []
    for number, (case, (fault, control)) in enumerate(product(CASES, controls.items())):
        key = uuid.uuid4().hex.encode()
        provider = new_provider(case.upstream, simulator_process, name=f"failing-{number}", api_key=key)
        route = Route(model=case.model(fault))
        providers.append(provider)
        routes.append(route)
        upstream_model = f"{UPSTREAMS[case.upstream]}@{control}"
        targets.append(RouteTarget(route=route, provider=provider, upstream_model=upstream_model, position=1))
    with django_db_blocker.unblock():
        ProviderAccount.objects.bulk_create(providers)
        Route.objects.bulk_create(routes)
        RouteTarget.objects.bulk_create(targets)


@pytest.mark.usefixtures("faults")
@each_of(CASES)
def test_each_status_of_a_provider_raises_the_sdk_s_matching_error(sdks: Sdks, case: Case) -> None:
    raised = {status: raised_by(case, sdks, case.model(status)) for status in RAISED}

    found = {status: (type(error).__name__, error.status_code) for status, error in raised.items()}
    assert found == {status: each[case.sdk] for status, each in RAISED.items()}
    assert {error.response.headers.get("retry-after") for error in (raised[429], raised[503], raised[529])} == {"30"}
    assert all((error.request_id or "").startswith("req_") for error in raised.values())


@pytest.mark.usefixtures("faults")
# Azure's streams are OpenAI's.
@each_of([case for case in CASES if case.upstream != "azure-dated"])
def test_a_cut_answer_always_raises(sdks: Sdks, case: Case) -> None:
    before = raised_by(case, sdks, case.model(CUT_BEFORE))

    assert (before.status_code, code_of(before)) == (502, "upstream_error")
    if case.way == "streamed":
        for cut in CUTS:
            error = raised_by(case, sdks, case.model(cut))
            # Reported in the stream, whose status was 200.
            assert getattr(error, "status_code", 200) == 200, cut
            assert error.type == ("server_error" if case.sdk == "openai" else "api_error"), cut
            assert code_of(error) == "upstream_stream_interrupted", cut


# Rejections by the gateway itself


@pytest.fixture(scope="module")
def narrow_key(sdk_site: SdkSite, django_db_blocker: DjangoDbBlocker) -> str:
    """The key of a site that may use one model, once a minute."""
    with django_db_blocker.unblock():
        made = create_site("Narrow", f"narrow-{uuid.uuid4().hex[:8]}")
        Site.objects.filter(id=made.site.id).update(allowed_models=["openai"])
        Limit.objects.create(site=made.site, requests_per_minute=1)
    return made.api_key.secret


def refusal(sdks: Sdks, sdk: str, model: str = "openai", *, key: str | None = None, **wanted: Any) -> Any:
    """Send a request with another key or body; return the exception."""
    client: Any = sdks.openai if sdk == "openai" else sdks.anthropic
    if key is not None:
        client = client.with_options(api_key=key)
    resource: Any = client.chat.completions if sdk == "openai" else client.messages
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        resource.create(**{"model": model, "messages": SAYS, "max_tokens": 50, **wanted})
    return caught.value


def described(error: Any) -> tuple[str, int, str]:
    """Return an exception's class, status and code."""
    return type(error).__name__, error.status_code, code_of(error)


each_sdk = pytest.mark.parametrize("sdk", SDKS)


@on_both_servers
@each_sdk
def test_unauthorized_requests_raise_the_sdk_s_matching_error(sdks: Sdks, sdk: str, narrow_key: str) -> None:
    wrong = refusal(sdks, sdk, key="nd_wrong")
    forbidden = refusal(sdks, sdk, "anthropic", key=narrow_key)

    assert described(wrong) == ("AuthenticationError", 401, "invalid_credentials")
    assert described(forbidden)[:2] == ("PermissionDeniedError", 403)


@on_both_servers
@each_sdk
@pytest.mark.parametrize("streamed", [False, True], ids=WAYS)
def test_a_rate_limited_request_raises_with_retry_after(sdks: Sdks, sdk: str, narrow_key: str, streamed: bool) -> None:
    client: Any = sdks.openai if sdk == "openai" else sdks.anthropic
    narrow = replace(sdks, **{sdk: client.with_options(api_key=narrow_key)})
    ask(narrow, sdk, "openai", streamed=streamed)

    error = refusal(sdks, sdk, key=narrow_key, stream=streamed)

    assert described(error) == ("RateLimitError", 429, "rate_limit_exceeded")
    assert 0 < int(error.response.headers["retry-after"]) <= 60


@on_both_servers
@each_sdk
def test_invalid_bodies_are_rejected_with_an_error_of_the_dialect(sdks: Sdks, sdk: str) -> None:
    wrong = refusal(sdks, sdk, messages=[{"role": "nobody", "content": "Hello"}])
    unknown = refusal(sdks, sdk, "no-such-model")
    large = refusal(sdks, sdk, messages=[{"role": "user", "content": "x" * 5_000_000}])

    assert described(wrong)[:2] == ("BadRequestError", 400)
    assert described(unknown) == ("NotFoundError", 404, "model_not_found")
    expected = "APIStatusError" if sdk == "openai" else "ContentTooLargeError"
    assert described(large) == (expected, 413, "body_too_large")
    assert large.response.headers["connection"] == "close"


@on_both_servers
@each_sdk
def test_an_idempotency_key_with_another_body_raises(sdks: Sdks, sdk: str) -> None:
    headers = {"Idempotency-Key": f"order-{uuid.uuid4()}"}
    ask(sdks, sdk, "openai", streamed=False, extra_headers=headers)

    error = refusal(sdks, sdk, extra_headers=headers)

    assert described(error) == ("UnprocessableEntityError", 422, "idempotency_key_reused")


def test_a_cursor_ahead_of_its_stream_raises_a_conflict(sdks: Sdks) -> None:
    with sdks.openai.chat.completions.with_streaming_response.create(
        model="openai", messages=SAYS, stream=True
    ) as answer:
        last = [line for line in answer.iter_lines() if line.startswith("id:")][-1].removeprefix("id: ")
    stream_id, _, seq = last.rpartition("-")

    with pytest.raises(openai.ConflictError) as caught:
        sdks.openai.get(f"/streams/{stream_id}/events?after={stream_id}-{int(seq) + 5}", cast_to=object)

    assert caught.value.code == "stream_cursor_ahead"


def test_unknown_addresses_and_models_raise_not_found(sdks: Sdks) -> None:
    with pytest.raises(openai.NotFoundError):
        sdks.openai.responses.create(model="openai", input="Hello")
    with pytest.raises(anthropic.NotFoundError):
        sdks.anthropic.models.retrieve("no-such-model")
