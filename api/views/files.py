"""`/v1/files`: upload, list, read, download and delete."""

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.errors import (
    BodyTimeout,
    BodyTooLarge,
    MalformedBody,
    NotMultipart,
    ResourceNotFound,
    StorageFull,
    TooManyUnverifiedUploads,
)
from api.openapi import error_responses
from api.pagination import page_schema, paginate, read_public_id
from api.request_body.multipart import read_form
from api.request_body.preauthentication import is_preauthentication_pass
from api.serializers.files import FILE_FORM, DeletedFileOut, FileIn, FileOut, FileQuery
from api.streaming_response import streaming_response
from api.views.resource import Resource
from jobs.errors import FileInUse, FileNotFound, FileTooLarge, InvalidFile, UnreadableFile
from jobs.file_content import content_of
from jobs.files.read import files_of, find_file
from jobs.files.store import FileUpload, delete_file
from jobs.models import File, FilePurpose
from tenants.access import TokenScope


@extend_schema(tags=["Files"])
class FileList(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE, "GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="create_file",
        summary="Upload the requests of a batch",
        description="A multipart form with the file, as OpenAI's SDKs send it. An API key or a token is verified "
        "before the file is read. A signature covers the file, so a signed upload must be complete within 60 s.",
        request={"multipart/form-data": FILE_FORM},
        responses={
            200: FileOut,
            **error_responses(
                ValidationError,
                MalformedBody,
                NotMultipart,
                InvalidFile,
                BodyTooLarge,
                FileTooLarge,
                BodyTimeout,
                TooManyUnverifiedUploads,
                StorageFull,
            ),
        },
        examples=[OpenApiExample("uploaded", examples.FILE, response_only=True, status_codes=["200"])],
    )
    def post(self, request: Request) -> Response:
        if is_preauthentication_pass(request._request):
            return Response(status=status.HTTP_204_NO_CONTENT)
        # The body has been read completely, so the transaction does not wait for the client.
        with transaction.atomic():
            draft = FileUpload(identity_of(request).site)
            fields, filename = read_form(request._request, draft)
            form = FileIn(data=fields.dict())
            form.is_valid(raise_exception=True)
            file = draft.finish(filename, ttl_seconds=form.ttl_seconds)
        return Response(FileOut(file).data)

    @extend_schema(
        operation_id="list_files",
        summary="List files",
        parameters=[FileQuery],
        responses={200: page_schema("FilePage", FileOut), **error_responses(ResourceNotFound, query=True)},
    )
    def get(self, request: Request) -> Response:
        query = FileQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        params = query.validated_data
        rows = _ordered(files_of(identity_of(request).site), params["order"], params.get("after"))
        if "purpose" in params:
            rows = rows.filter(purpose=params["purpose"])
        return Response(paginate(lambda limit: list(rows[:limit]), params["limit"]).to_wire(FileOut))


@extend_schema(tags=["Files"])
class FileDetail(Resource):
    scopes = {"GET": TokenScope.JOBS_READ, "DELETE": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="get_file",
        summary="Retrieve a file's metadata",
        responses={200: FileOut, **error_responses(FileNotFound)},
        examples=[OpenApiExample("file", examples.FILE, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, file_id: str) -> Response:
        return Response(FileOut(find_file(identity_of(request).site, file_id)).data)

    @extend_schema(
        operation_id="delete_file",
        summary="Delete a file with its content",
        description="Batches created from it keep their requests and results.",
        responses={200: DeletedFileOut, **error_responses(FileNotFound, FileInUse)},
        examples=[OpenApiExample("deleted", examples.DELETED_FILE, response_only=True, status_codes=["200"])],
    )
    def delete(self, request: Request, file_id: str) -> Response:
        delete_file(identity_of(request).site, file_id)
        return Response({"id": file_id, "object": "file", "deleted": True})


@extend_schema(tags=["Files"])
class FileContent(Resource):
    scopes = {"GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="get_file_content",
        summary="Download a file",
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            **error_responses(FileNotFound, UnreadableFile),
        },
    )
    def get(self, request: Request, file_id: str) -> HttpResponseBase:
        file = find_file(identity_of(request).site, file_id)
        # Output files are generated while they are sent, so their length is not known in advance.
        length = file.bytes if file.purpose == FilePurpose.BATCH else None
        return streaming_response(request._request, content_of(file), "application/octet-stream", length=length)


def _ordered(rows: QuerySet[File], order: str, after: str | None) -> QuerySet[File]:
    """Return the rows in this order, after the one with the public id `after`."""
    is_ascending = order == "asc"
    if after is not None:
        last = read_public_id(File.ID_PREFIX, after)
        rows = rows.filter(id__gt=last) if is_ascending else rows.filter(id__lt=last)
    return rows.order_by("id" if is_ascending else "-id")
