"""The clients of a campaign: they submit, repeat, cancel and read as planned, and log every response."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec

from tests.chaos.desk import SeededSite
from tests.chaos.plan import BatchOrder, Order, Plan, model_of

#: How long a client retries, in seconds.
PATIENCE_SECONDS = 45.0
PAUSE_SECONDS = 0.4
TIMEOUT = aiohttp.ClientTimeout(total=12)
#: Concurrent requests of one site's server.
AT_ONCE = 24
#: Stands for the status of a request whose connection was refused.
NOBODY_THERE = "nobody_there"
READ_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Told:
    """One request of a client and its response. `status` is None if no response came."""

    order: int
    #: submit, repeat, abuse, cancel, read or final
    question: str
    at: float
    status: int | None
    code: str = ""
    job_id: str = ""
    state: str = ""
    result_sha256: str = ""

    @property
    def is_clear(self) -> bool:
        """Whether the client knows the outcome of its request."""
        return (self.status is not None and self.status < 500) or self.was_not_asked

    @property
    def was_not_asked(self) -> bool:
        """The connection was refused, so the request had no effect."""
        return self.code == NOBODY_THERE


class Clients:
    """Runs all clients. `told` is their ledger."""

    def __init__(self, plan: Plan, url: str, sites: Sequence[SeededSite]) -> None:
        self.told: list[Told] = []
        #: The same for batches: each batch's number and id.
        self.batches: list[tuple[int, str]] = []
        #: The `custom_id` of every line of results, by the batch's id.
        self.results: dict[str, list[str]] = {}
        #: Orders whose submission has finished, with any outcome.
        self.posted: set[int] = set()
        self._plan, self._url, self._sites = plan, url, sites
        self._jobs: dict[int, str] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self, begin: float) -> None:
        """Carry out the plan; `begin` is a reading of `time.monotonic`."""
        async with self._session() as http:
            await asyncio.gather(
                *(self._keep(order, http, begin) for order in self._plan.orders),
                *(self._keep_batch(order, http, begin) for order in self._plan.batches),
            )

    async def read_all(self) -> None:
        """Read every accepted job once more."""
        async with self._session() as http:
            places = asyncio.Semaphore(READ_AT_ONCE)

            async def read(order: Order) -> None:
                async with places:
                    await self._persist(lambda: self._read(order, http, "final"))

            await asyncio.gather(*(read(order) for order in self._plan.orders if order.number in self._jobs))
            sites = {order.number: order.site for order in self._plan.batches}
            for number, batch_id in self.batches:
                self.results[batch_id] = await self._read_results(sites[number], http, batch_id)

    @property
    def accepted(self) -> int:
        return len(self._jobs)

    def _session(self) -> aiohttp.ClientSession:
        # A new connection for each request: one to a killed web process must not affect the next request.
        return aiohttp.ClientSession(self._url, timeout=TIMEOUT, connector=aiohttp.TCPConnector(force_close=True))

    async def _keep(self, order: Order, http: aiohttp.ClientSession, begin: float) -> None:
        await _until(begin + order.at)
        body = _body(order, self._plan.seed)
        others: list[tuple[float, Callable[[], Awaitable[Told]]]] = [
            *((at, lambda: self._post(order, http, "repeat", body)) for at in order.repeats)
        ]
        if order.abuse_at is not None:
            others.append((order.abuse_at, lambda: self._abuse(order, http, body)))
        if order.cancel_at is not None:
            others.append((order.cancel_at, lambda: self._cancel(order, http)))
        if order.read_at is not None:
            others.append((order.read_at, lambda: self._read(order, http, "read")))
        first = self._persist(lambda: self._post(order, http, "submit", body), again=order.key is not None)
        await asyncio.gather(first, *(self._later(begin + at, ask) for at, ask in others))
        self.posted.add(order.number)

    async def _keep_batch(self, order: BatchOrder, http: aiohttp.ClientSession, begin: float) -> None:
        """Submit a batch until it is accepted, submit it again, and cancel it if that is planned."""
        await _until(begin + order.at)
        headers = {"Idempotency-Key": f"batch-{order.number}"}
        body = _batch_body(order, self._plan.seed)
        for _ in range(2):
            found = await self._insist(order.site, http, "/v1/batches", body, headers)
            if found is not None:
                self.batches.append((order.number, str(found["id"])))
        if order.cancel_at is not None and self.batches and found is not None:
            await _until(begin + order.cancel_at)
            await self._insist(order.site, http, f"/v1/batches/{found['id']}/cancel", {}, {})

    async def _insist(
        self, site: int, http: aiohttp.ClientSession, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Submit until the outcome is known, and return the response if it is a success."""
        proof = {"Authorization": f"Bearer {self._sites[site].api_key}"}
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            try:
                async with http.post(path, json=body, headers={**proof, **headers}) as answer:
                    if answer.status < 500:
                        found: dict[str, Any] = await answer.json()
                        return found if answer.status < 300 else None
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass
            await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _read_results(self, site: int, http: aiohttp.ClientSession, batch_id: str) -> list[str]:
        proof = {"Authorization": f"Bearer {self._sites[site].api_key}"}
        async with http.get(f"/v1/batches/{batch_id}/results", headers=proof) as answer:
            answer.raise_for_status()
            return [msgspec.json.decode(line)["custom_id"] for line in (await answer.read()).splitlines()]

    async def _later(self, at: float, ask: Callable[[], Awaitable[Told]]) -> None:
        await _until(at)
        await self._persist(ask)

    async def _persist(self, ask: Callable[[], Awaitable[Told]], *, again: bool = True) -> None:
        """Send a request until its outcome is known, where repeating it is safe."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            told = await ask()
            if not told.was_not_asked and (told.is_clear or not again):
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _post(self, order: Order, http: aiohttp.ClientSession, question: str, body: Mapping[str, Any]) -> Told:
        headers = {"Idempotency-Key": order.key} if order.key else {}
        told = await self._ask(order, http, question, "POST", "/v1/jobs", body, headers)
        if told.status == 202:
            self._jobs.setdefault(order.number, told.job_id)
        return told

    async def _abuse(self, order: Order, http: aiohttp.ClientSession, body: Mapping[str, Any]) -> Told:
        """Submit another body under the same key, once the first submission has its response."""
        if order.number not in self._jobs:
            return Told(order.number, "abuse", time.time(), 0)
        return await self._post(order, http, "abuse", {**body, "metadata": {"order": "another"}})

    async def _cancel(self, order: Order, http: aiohttp.ClientSession) -> Told:
        if (job_id := self._jobs.get(order.number)) is None:
            return Told(order.number, "cancel", time.time(), 0)
        return await self._ask(order, http, "cancel", "POST", f"/v1/jobs/{job_id}/cancel", {})

    async def _read(self, order: Order, http: aiohttp.ClientSession, question: str) -> Told:
        if (job_id := self._jobs.get(order.number)) is None:
            return Told(order.number, question, time.time(), 0)
        return await self._ask(order, http, question, "GET", f"/v1/jobs/{job_id}")

    async def _ask(
        self,
        order: Order,
        http: aiohttp.ClientSession,
        question: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        proof = {"Authorization": f"Bearer {self._sites[order.site].api_key}"}
        async with self._places:
            at = time.time()
            try:
                async with http.request(method, path, json=body, headers={**proof, **(headers or {})}) as answer:
                    told = _read_answer(order.number, question, at, answer.status, await answer.read())
            except aiohttp.ClientConnectorError:
                told = Told(order.number, question, at, None, NOBODY_THERE)
            except (aiohttp.ClientError, TimeoutError):
                told = Told(order.number, question, at, None)
        self.told.append(told)
        return told


def _read_answer(order: int, question: str, at: float, status: int, content: bytes) -> Told:
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        # A truncated response tells nothing.
        return Told(order, question, at, None)
    if status >= 400:
        return Told(order, question, at, status, code=str(found.get("error", {}).get("code")))
    result = found.get("result")
    return Told(
        order,
        question,
        at,
        status,
        job_id=found["id"],
        state=found["state"],
        result_sha256=hashlib.sha256(msgspec.json.encode(result, order="sorted")).hexdigest() if result else "",
    )


def _body(order: Order, seed: int) -> dict[str, Any]:
    """Return the body to submit. No two orders are alike, because the simulator counts attempts by the body."""
    text = f"Order {order.number} of night {seed}: describe what is in the window of a bakery."
    wire: dict[str, Any] = {"model": model_of(order.kind, order.temper)}
    if order.kind == "embeddings":
        wire["input"] = [text, "rye bread"]
    else:
        wire |= {"messages": [{"role": "user", "content": text}], "max_tokens": 60}
    body: dict[str, Any] = {
        "kind": order.kind,
        "body": wire,
        "priority": order.priority,
        "max_attempts": order.max_attempts,
        "metadata": {"order": str(order.number)},
    }
    now = datetime.now(UTC)
    if order.delay_seconds is not None:
        body["available_at"] = (now + timedelta(seconds=order.delay_seconds)).isoformat()
    if order.expiry_seconds is not None:
        body["expires_at"] = (now + timedelta(seconds=order.expiry_seconds)).isoformat()
    return body


PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "embeddings": "/v1/embeddings"}


def _batch_body(order: BatchOrder, seed: int) -> dict[str, Any]:
    wire = "input" if order.kind == "embeddings" else "messages"
    requests = []
    for number, temper in enumerate(order.tempers):
        text = f"Member {number} of batch {order.number} of night {seed}."
        body: dict[str, Any] = {"model": model_of(order.kind, temper)}
        if wire == "input":
            body["input"] = [text]
        else:
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 40}
        requests.append({"custom_id": f"member-{number}", "body": body})
    return {"endpoint": PATHS[order.kind], "requests": requests}


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))
