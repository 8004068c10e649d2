"""What was let in, and then cannot begin."""

from dataclasses import replace

import pytest
from pytest_django import Settings

from api.live.asked import to_asked
from api.live.desk import close_live_desk, live_desk
from api.live.infer import open_stream
from api.live.who import Known
from streams.errors import StreamsClosed
from tenants.admission.admission import open_requests
from tenants.credentials import NewSite, create_site
from tenants.models import Limit
from tenants.proof import Identity, Means
from tests.factories import make_provider, make_route
from tests.polling import wait_until

SCOPE = {"type": "http", "method": "POST", "path": "/v1/streams", "headers": [(b"idempotency-key", b"k-1")]}
BODY = b'{"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}'


@pytest.fixture
def made(transactional_db: None, settings: Settings) -> NewSite:
    made = create_site("Bakery", "bakery")
    Limit.objects.create(site=made.site, concurrency=1, tokens_per_minute=10_000)
    make_route("chat", (make_provider(), "gpt-4o-mini"))
    return made


async def test_a_process_that_stops_gives_back_what_it_let_in_and_cannot_begin(made: NewSite) -> None:
    known = Known(Identity(made.site, Means.API_KEY, "key_1"), None)
    asked = replace(to_asked(SCOPE), body=BODY)
    desk = await live_desk(server_waits=True)
    try:
        # Between the look whether it is to stop, and the beginning.
        await desk.streams.drain(0)
        with pytest.raises(StreamsClosed):
            await open_stream(desk, known, asked, "openai", detached=True)

        await wait_until(lambda: not desk.leases.held)

        assert await open_requests(desk.server, desk.mark.id) == set()
        left = [key async for key in desk.server.scan_iter(f"nd:{{{made.site.public_id}}}:*")]
        assert not [key for key in left if b":window:" not in key]
    finally:
        await close_live_desk()
