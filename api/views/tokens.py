"""`/v1/tokens` and `/v1/tickets`: what a site gives to its front ends and visitors in place of its own credentials."""

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of, server_origin
from api.openapi import error_responses
from api.serializers.tokens import TicketIn, TicketOut, TokenIn, TokenOut, ticket_to_wire
from api.views.resource import Resource
from jobs.errors import JobNotFound
from jobs.read import find_job
from tenants import narrow_tokens, tickets
from tenants.access import TokenScope, check_scope
from tenants.tickets import READ_SCOPES, ReadableKind


@extend_schema(tags=["Tokens"])
class CreateToken(Resource):
    scopes = {"POST": TokenScope.TOKENS_WRITE}

    @extend_schema(
        operation_id="create_token",
        summary="Mint a short-lived, narrow token",
        description="For a front end that you trust to start requests itself. It ends by its time, and within a second "
        "when the site is switched off or the credential that you prove yourself with is revoked. A narrow token mints "
        "no other, and a narrowed JWT (which needs `tokens:write`) none that is wider than itself.",
        request=TokenIn,
        responses={201: TokenOut, **error_responses(body=True)},
        examples=[
            OpenApiExample("for a page", examples.TOKEN_REQUEST, request_only=True),
            OpenApiExample("minted", examples.TOKEN, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = TokenIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        token = narrow_tokens.mint(identity_of(request), wanted.to_token_request(), own=server_origin(request._request))
        return Response(TokenOut(token).data, status.HTTP_201_CREATED)


@extend_schema(tags=["Tokens"])
class CreateTicket(Resource):
    @extend_schema(
        operation_id="create_ticket",
        summary="Mint a ticket for one stream or job",
        description="For a visitor's browser. It reads the events of that one stream or job, and starts nothing. It "
        "needs the scope to read what it is for.",
        request=TicketIn,
        responses={201: TicketOut, **error_responses(JobNotFound, body=True)},
        examples=[
            OpenApiExample("for a job", examples.TICKET_REQUEST, request_only=True),
            OpenApiExample("minted", examples.TICKET, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request) -> Response:
        asked = TicketIn(data=request.data)
        asked.is_valid(raise_exception=True)
        identity, (what, public_id) = identity_of(request), asked.wanted
        check_scope(identity, READ_SCOPES[what])
        if what is ReadableKind.JOB:
            find_job(identity.site, public_id)
        ticket = tickets.mint(
            identity, what, public_id, origin=asked.validated_data.get("origin"), own=server_origin(request._request)
        )
        return Response(ticket_to_wire(what, public_id, ticket), status.HTTP_201_CREATED)
