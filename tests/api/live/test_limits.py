"""`GET /v1/limits` while live requests use the limits up."""

import uuid
from dataclasses import replace
from typing import Any

import httpx

from inference.models import ProviderAccount
from tenants.credentials import create_site
from tenants.models import Limit
from tenants.rate_limiting import rules
from tests.api.live.conftest import Live
from tests.factories import make_route
from tests.polling import wait_for

CHAT: dict[str, Any] = {
    "model": "openai-chat",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Say hello."}],
}
SLOW = "gpt-4o-mini@tokens=50,deltas=50,inter_token_ms=500"


def limits(live: Live) -> dict[str, Any]:
    answer = live.get("/v1/limits")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def remaining(live: Live) -> dict[str, int]:
    return {f"{each['name']} {each['unit']}": each["remaining"] for each in limits(live)["windows"]}


def test_remaining_quotas_are_what_the_site_has_not_used(live: Live) -> None:
    other = replace(live, made=create_site("Florist", f"florist-{uuid.uuid4().hex[:8]}"))
    Limit.objects.create(requests_per_minute=5, tokens_per_minute=10_000)
    Limit.objects.create(kind="chat", model="openai-chat", requests_per_hour=3)
    rules.clear_cache()

    assert live.post("/v1/chat/completions", CHAT).status_code == 200
    (event,) = live.usage(1)

    used = event.input_tokens + event.output_tokens
    left = {"site requests": 4, "site tokens": 10_000 - used, "kind:chat,model:openai-chat requests": 2}
    # Reading the limits uses none of them.
    assert [remaining(live) for _ in range(3)] == [left] * 3
    assert remaining(other) == {
        "site requests": 5,
        "site tokens": 10_000,
        "kind:chat,model:openai-chat requests": 3,
    }
    assert all(0 < each["reset_seconds"] <= each["seconds"] for each in limits(live)["windows"])
    statuses = [live.post("/v1/chat/completions", {**CHAT, "seed": seed}).status_code for seed in range(3)]
    assert statuses == [200, 200, 429]
    assert remaining(live)["kind:chat,model:openai-chat requests"] == 0


def test_a_running_stream_counts_against_concurrency_until_it_ends(live: Live) -> None:
    make_route("slow-chat", (ProviderAccount.objects.get(name="sim-openai"), SLOW))
    Limit.objects.create(concurrency=2)
    rules.clear_cache()

    started = live.post("/v1/streams", {**CHAT, "model": "slow-chat", "stream": True}).json()

    assert limits(live)["concurrency"] == {"limit": 2, "running": 1}
    assert httpx.delete(f"{live.url}/v1/streams/{started['id']}", headers=live.headers).status_code == 202
    wait_for(lambda: limits(live)["concurrency"] == {"limit": 2, "running": 0})
