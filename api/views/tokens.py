"""`/v1/tokens` and `/v1/tickets`: short-lived credentials for front ends and visitors (least privilege)."""

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
        description="For a front end that may start requests itself. It expires after its lifetime, and within a "
        "second after the site is disabled or the credential of this request is revoked. A narrow token cannot mint "
        "tokens. A JWT with restrictions needs `tokens:write` and cannot mint a token that allows more than itself.",
        request=TokenIn,
        responses={201: TokenOut, **error_responses(body=True)},
        examples=[
            OpenApiExample("for a page", examples.TOKEN_REQUEST, request_only=True),
            OpenApiExample("minted", examples.TOKEN, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request) -> Response:
        body = TokenIn(data=request.data)
        body.is_valid(raise_exception=True)
        token = narrow_tokens.mint(
            identity_of(request), body.to_token_request(), own_origin=server_origin(request._request)
        )
        return Response(TokenOut(token).data, status.HTTP_201_CREATED)


@extend_schema(tags=["Tokens"])
class CreateTicket(Resource):
    @extend_schema(
        operation_id="create_ticket",
        summary="Mint a ticket for one stream or job",
        description="For a visitor's browser. It can only read the events of that stream or job. Minting it requires "
        "the scope to read them.",
        request=TicketIn,
        responses={201: TicketOut, **error_responses(JobNotFound, body=True)},
        examples=[
            OpenApiExample("for a job", examples.TICKET_REQUEST, request_only=True),
            OpenApiExample("minted", examples.TICKET, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request) -> Response:
        body = TicketIn(data=request.data)
        body.is_valid(raise_exception=True)
        identity, (kind, public_id) = identity_of(request), body.target
        check_scope(identity, READ_SCOPES[kind])
        if kind is ReadableKind.JOB:
            find_job(identity.site, public_id)
        ticket = tickets.mint(
            identity,
            kind,
            public_id,
            origin=body.validated_data.get("origin"),
            own_origin=server_origin(request._request),
        )
        return Response(ticket_to_wire(kind, public_id, ticket), status.HTTP_201_CREATED)
