"""Calls the gateway with older major versions of the SDKs, in a process of its own with their folder first on the path.

Prints the results as JSON.
"""

import json
import sys
from typing import Any

import anthropic
import openai
from pydantic import BaseModel

SAYS: Any = [{"role": "user", "content": "Say hello."}]
PARAMETERS: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


#: If the provider cuts its answer, the next one continues it, and the stream says so.
CONTINUED = {"X-Nightdesk-Continue": "true"}


class Mood(BaseModel):
    mood: str


def tried_openai(url: str, key: str, model: str) -> dict[str, Any]:
    # Any, because the installed types are those of the newest SDKs.
    client: Any = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)
    create = client.chat.completions.create
    plain = create(model=model, messages=SAYS)
    chunks = list(create(model=model, messages=SAYS, stream=True, stream_options={"include_usage": True}))
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
    with client.chat.completions.stream(model=model, messages=SAYS, tools=[tool], tool_choice="required") as stream:
        message = stream.get_final_completion().choices[0].message
    with client.chat.completions.stream(model=f"{model}-continued", messages=SAYS, extra_headers=CONTINUED) as stream:
        continued = stream.get_final_completion().choices[0]
    parsed = client.chat.completions.parse(model=model, messages=SAYS, response_format=Mood)
    vectors = client.embeddings.create(model="embed", input=["a", "b"])
    return {
        "plain": bool(plain.choices[0].message.content),
        "request_id": (plain._request_id or "")[:4],
        "streamed": bool("".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)),
        "usage": bool(chunks[-1].usage),
        "tools": [call.function.name for call in message.tool_calls or []],
        "continued": (continued.finish_reason, len(continued.message.content.split()) > 3),
        "parsed": type(parsed.choices[0].message.parsed).__name__,
        "vectors": [len(row.embedding) for row in vectors.data],
        "models": model in {each.id for each in client.models.list()},
        "unknown": _raised(lambda: create(model="no-such-model", messages=SAYS)),
        "cut": _raised(lambda: list(create(model=f"{model}-cut", messages=SAYS, stream=True))),
    }


def tried_anthropic(url: str, key: str, model: str) -> dict[str, Any]:
    # This major sends the key as `x-api-key`, and the classic version.
    client: Any = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)
    parameters: Any = {"model": model, "max_tokens": 200, "messages": SAYS}
    plain = client.messages.create(**parameters, temperature=0.5)
    with client.messages.stream(**parameters) as stream:
        text = "".join(stream.text_stream)
    with client.messages.stream(**{**parameters, "model": f"{model}-continued"}, extra_headers=CONTINUED) as stream:
        continued = stream.get_final_message()
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    with client.messages.stream(**parameters, tools=[tool], tool_choice={"type": "any"}) as stream:
        calls = stream.get_final_message().content
    return {
        "plain": bool(getattr(plain.content[0], "text", "")),
        "request_id": (plain._request_id or "")[:4],
        "streamed": bool(text),
        "usage": plain.usage.output_tokens > 0,
        "tools": [call.name for call in calls],
        "continued": (continued.stop_reason, len(continued.content[0].text.split()) > 3),
        "counted": client.messages.count_tokens(model=model, messages=SAYS).input_tokens > 0,
        "models": model in {each.id for each in client.models.list()},
        "unknown": _raised(lambda: client.messages.create(**{**parameters, "model": "no-such-model"})),
        "cut": _raised(lambda: list(client.messages.create(**{**parameters, "model": f"{model}-cut"}, stream=True))),
    }


def _raised(ask: Any) -> str:
    try:
        ask()
    except (openai.APIError, anthropic.APIError) as error:
        return type(error).__name__
    return "nothing"


if __name__ == "__main__":
    url, key = sys.argv[1:]
    said = {
        "versions": [openai.__version__, anthropic.__version__],
        **{f"openai to {model}": tried_openai(url, key, model) for model in ("openai", "anthropic")},
        **{f"anthropic to {model}": tried_anthropic(url, key, model) for model in ("openai", "anthropic")},
    }
    print(json.dumps(said))
