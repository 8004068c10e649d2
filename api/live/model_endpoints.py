"""The endpoints that call no provider: the list of models, and the token count of a prompt."""

from collections.abc import Iterator
from urllib.parse import parse_qsl

from api.errors import ResourceNotFound
from api.live.authenticate import authenticate
from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.infer import with_error_response
from api.live.respond import ResponseContext, send_body, to_json
from api.live.wire_formats import WireFormat
from core import clock
from inference.routing import Routing, get_routing_async
from live.admit import consume_nonce
from providers.catalogue import find_model
from providers.dialects import anthropic
from providers.dialects.model_list import (
    ListedModel,
    encode_anthropic_model,
    encode_anthropic_models,
    encode_openai_model,
    encode_openai_models,
)
from providers.token_estimation import estimate_input_tokens
from tenants.access import TokenScope, check_model, is_model_allowed
from tenants.authentication import Identity


async def list_models(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    """`GET /v1/models`, in the wire format of the client."""
    await with_error_response(_context_for(http_request, "models"), response, _list)


async def get_model(http_request: LiveHttpRequest, response: LiveHttpResponse, name: str) -> None:
    """`GET /v1/models/{id}`."""
    await with_error_response(_context_for(http_request, "models"), response, lambda context, r: _get(context, r, name))


async def count_tokens(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    """`POST /v1/messages/count_tokens`: an estimate, without a call to the provider."""
    await with_error_response(ResponseContext(http_request, "count_tokens", WireFormat.ANTHROPIC), response, _count)


async def _list(context: ResponseContext, response: LiveHttpResponse) -> None:
    models = await _models(context)
    if context.wire is WireFormat.ANTHROPIC:
        query = dict(parse_qsl(context.http_request.query))
        body = encode_anthropic_models(models, query, today=clock.now().date())
    else:
        body = encode_openai_models(models)
    await send_body(context, response, to_json(body))


async def _get(context: ResponseContext, response: LiveHttpResponse, name: str) -> None:
    model = next((model for model in await _models(context) if model.name == name), None)
    if model is None:
        raise ResourceNotFound(f"The model '{name[:200]}' does not exist, or this site may not use it.")
    is_anthropic = context.wire is WireFormat.ANTHROPIC
    body = encode_anthropic_model(model, today=clock.now().date()) if is_anthropic else encode_openai_model(model)
    await send_body(context, response, to_json(body))


async def _count(context: ResponseContext, response: LiveHttpResponse) -> None:
    runtime, caller = await authenticate(context, TokenScope.CHAT_WRITE)
    await consume_nonce(runtime, caller)
    request = anthropic.decode_count_tokens(context.http_request.body)
    check_model(caller.identity.site, caller.identity.grant, request.model)
    (await get_routing_async(runtime.threads)).targets_for(request.model)
    await send_body(context, response, to_json({"input_tokens": estimate_input_tokens(request)}))


async def _models(context: ResponseContext) -> list[ListedModel]:
    """Return the models that the caller may use."""
    runtime, caller = await authenticate(context, None)
    await consume_nonce(runtime, caller)
    return list(_listed_models(caller.identity, await get_routing_async(runtime.threads)))


def _listed_models(identity: Identity, routing: Routing) -> Iterator[ListedModel]:
    for name, targets in sorted(routing.routes.items()):
        has_key = any(target.provider.api_key for target in targets)
        if has_key and is_model_allowed(identity.site, identity.grant, name):
            first = targets[0]
            owners = {target.provider.name for target in targets}
            catalogue_model = find_model(first.provider.price_list, first.upstream_model)
            yield ListedModel(name, owners.pop() if len(owners) == 1 else "nightdesk", catalogue_model)


def _context_for(http_request: LiveHttpRequest, route: str) -> ResponseContext:
    return ResponseContext(
        http_request, route, WireFormat.ANTHROPIC if "anthropic-version" in http_request.headers else WireFormat.OPENAI
    )
