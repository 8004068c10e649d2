"""What costs nothing to ask: models, and how many tokens a prompt has."""

from collections.abc import Iterator
from urllib.parse import parse_qsl

from api.errors import ResourceNotFound
from api.live.answer import Course, send_body
from api.live.asked import Asked
from api.live.begin import to_json
from api.live.edges import Wire
from api.live.infer import answered
from api.live.request import Reply
from api.live.who import enter, use_up
from core import clock
from inference.routing import Routing
from providers.catalogue import find_model
from providers.dialects import anthropic
from providers.dialects.model_list import (
    ListedModel,
    anthropic_model,
    anthropic_models,
    openai_model,
    openai_models,
)
from providers.estimate import estimate_tokens
from tenants.limits import Scope, check_model
from tenants.proof import Identity


async def list_models(asked: Asked, reply: Reply) -> None:
    """`GET /v1/models`, in the form of the client that asks."""
    await answered(_course(asked, "models"), reply, _list)


async def get_model(asked: Asked, reply: Reply, name: str) -> None:
    """`GET /v1/models/{id}`."""
    await answered(_course(asked, "models"), reply, lambda course, r: _get(course, r, name))


async def count_tokens(asked: Asked, reply: Reply) -> None:
    """`POST /v1/messages/count_tokens`: an estimate, which asks no provider."""
    await answered(Course(asked, "count_tokens", Wire.ANTHROPIC), reply, _count)


async def _list(course: Course, reply: Reply) -> None:
    models = await _models(course)
    if course.wire is Wire.ANTHROPIC:
        query = dict(parse_qsl(course.asked.query))
        body = anthropic_models(models, query, today=clock.now().date())
    else:
        body = openai_models(models)
    await send_body(course, reply, to_json(body))


async def _get(course: Course, reply: Reply, name: str) -> None:
    model = next((model for model in await _models(course) if model.name == name), None)
    if model is None:
        raise ResourceNotFound(f"The model '{name[:200]}' does not exist, or this site may not use it.")
    is_anthropic = course.wire is Wire.ANTHROPIC
    body = anthropic_model(model, today=clock.now().date()) if is_anthropic else openai_model(model)
    await send_body(course, reply, to_json(body))


async def _count(course: Course, reply: Reply) -> None:
    desk, known = await enter(course, Scope.CHAT_WRITE)
    await use_up(desk, known)
    request = anthropic.decode_count(course.asked.body)
    check_model(known.identity.site, request.model, known.identity.grant.only_model)
    (await desk.glances.routing()).targets_for(request.model)
    await send_body(course, reply, to_json({"input_tokens": estimate_tokens(request)}))


async def _models(course: Course) -> list[ListedModel]:
    """Return what the caller may ask for."""
    desk, known = await enter(course, None)
    await use_up(desk, known)
    return list(_listed(known.identity, await desk.glances.routing()))


def _listed(identity: Identity, routing: Routing) -> Iterator[ListedModel]:
    for name, targets in sorted(routing.routes.items()):
        if _may_use(identity, name) and any(target.provider.api_key for target in targets):
            first = targets[0]
            owners = {target.provider.name for target in targets}
            known = find_model(first.provider.price_list, first.upstream_model)
            yield ListedModel(name, owners.pop() if len(owners) == 1 else "nightdesk", known)


def _may_use(identity: Identity, name: str) -> bool:
    allowed = identity.site.allowed_models
    return (not allowed or name in allowed) and identity.grant.only_model in (None, name)


def _course(asked: Asked, route: str) -> Course:
    return Course(asked, route, Wire.ANTHROPIC if "anthropic-version" in asked.headers else Wire.OPENAI)
