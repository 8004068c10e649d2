"""A plain Celery application: one task is one POST to the provider. No database, early acks, no retry.

Two ways to ask, both with one client for all threads: httpx in the thread itself, and httpx on one event loop that
the threads hand their calls to. Each can also ask for a stream and read it to its end.
"""

import asyncio
import json
import os
import threading
from typing import Any

import httpx
from celery import Celery

PATH = "/chat/completions"
#: As many connections as there may be threads; httpx's own limit of 100 would be the bottleneck.
CLIENT: dict[str, Any] = {
    "base_url": os.environ["PEER_PROVIDER_URL"],
    "headers": {"Authorization": "Bearer sk-simulator"},
    "timeout": 60,
    "limits": httpx.Limits(max_connections=1000, max_keepalive_connections=1000),
}

app = Celery("peer", broker=os.environ["PEER_BROKER_URL"])
app.conf.update(task_ignore_result=True, task_default_queue="peer")

client = httpx.Client(**CLIENT)
async_client = httpx.AsyncClient(**CLIENT)
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()


@app.task  # type: ignore[untyped-decorator] # Celery ships no types
def ask(model: str, stream: bool) -> str:
    """Ask in this thread."""
    body = body_for(model, stream)
    if stream:
        with client.stream("POST", PATH, json=body) as answer:
            answer.raise_for_status()
            return "".join(map(text_in, answer.iter_lines()))
    return text_of(client.post(PATH, json=body))


@app.task  # type: ignore[untyped-decorator]
def ask_on_loop(model: str, stream: bool) -> str:
    """Ask on the event loop of the process, and wait for it."""
    return asyncio.run_coroutine_threadsafe(ask_async(model, stream), loop).result()


async def ask_async(model: str, stream: bool) -> str:
    body = body_for(model, stream)
    if stream:
        async with async_client.stream("POST", PATH, json=body) as answer:
            answer.raise_for_status()
            return "".join([text_in(line) async for line in answer.aiter_lines()])
    return text_of(await async_client.post(PATH, json=body))


def body_for(model: str, stream: bool) -> dict[str, Any]:
    """Return the request that the bench's jobs make too."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def text_of(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def text_in(line: str) -> str:
    """Return the text that one line of a stream carries."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""
