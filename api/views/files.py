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
from api.announced import is_announced
from api.authentication import identity_of
from api.errors import Malformed, NoRoom, NotAForm, ResourceNotFound, TooLarge, TooManyUnproven, TooSlow
from api.pages import page_of, page_schema, read_id
from api.schema import refusals
from api.serializers.files import FILE_FORM, FileDeletedOut, FileIn, FileOut, FileQuery
from api.streaming import stream
from api.uploads import read_form
from api.views.resource import Resource
from jobs.errors import FileInUse, FileMissing, FileTooLarge, UnfitFile, UnreadableFile
from jobs.files.content import content_of
from jobs.files.read import files_of, find_file
from jobs.files.store import Draft, delete_file
from jobs.models import File, FilePurpose
from tenants.limits import Scope


@extend_schema(tags=["Files"])
class Files(Resource):
    scopes = {"POST": Scope.JOBS_WRITE, "GET": Scope.JOBS_READ}

    @extend_schema(
        operation_id="create_file",
        summary="Upload the requests of a batch",
        description="A form with the file, as OpenAI's SDKs send it. An API key or a token is checked before the file "
        "is read. A signature covers the file, so a signed upload must be here whole within its 60 seconds.",
        request={"multipart/form-data": FILE_FORM},
        responses={
            200: FileOut,
            **refusals(
                ValidationError,
                Malformed,
                NotAForm,
                UnfitFile,
                TooLarge,
                FileTooLarge,
                TooSlow,
                TooManyUnproven,
                NoRoom,
            ),
        },
        examples=[OpenApiExample("uploaded", examples.FILE, response_only=True, status_codes=["200"])],
    )
    def post(self, request: Request) -> Response:
        if is_announced(request._request):
            return Response(status=status.HTTP_204_NO_CONTENT)
        # The whole body is here already, so the transaction waits for nobody.
        with transaction.atomic():
            draft = Draft(identity_of(request).site)
            fields, filename = read_form(request._request, draft)
            wanted = FileIn(data=fields.dict())
            wanted.is_valid(raise_exception=True)
            file = draft.finish(filename, kept_seconds=wanted.kept_seconds)
        return Response(FileOut(file).data)

    @extend_schema(
        operation_id="list_files",
        summary="List files",
        parameters=[FileQuery],
        responses={200: page_schema("FilePage", FileOut), **refusals(ResourceNotFound, query=True)},
    )
    def get(self, request: Request) -> Response:
        wanted = FileQuery(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        given = wanted.validated_data
        rows = _in_order(files_of(identity_of(request).site), given["order"], given.get("after"))
        if "purpose" in given:
            rows = rows.filter(purpose=given["purpose"])
        return Response(page_of(lambda limit: list(rows[:limit]), given["limit"]).to_wire(FileOut))


@extend_schema(tags=["Files"])
class OneFile(Resource):
    scopes = {"GET": Scope.JOBS_READ, "DELETE": Scope.JOBS_WRITE}

    @extend_schema(
        operation_id="get_file",
        summary="Read what a file is",
        responses={200: FileOut, **refusals(FileMissing)},
        examples=[OpenApiExample("file", examples.FILE, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, file_id: str) -> Response:
        return Response(FileOut(find_file(identity_of(request).site, file_id)).data)

    @extend_schema(
        operation_id="delete_file",
        summary="Delete a file with its content",
        description="Batches made of it keep their members and results.",
        responses={200: FileDeletedOut, **refusals(FileMissing, FileInUse)},
        examples=[OpenApiExample("deleted", examples.DELETED_FILE, response_only=True, status_codes=["200"])],
    )
    def delete(self, request: Request, file_id: str) -> Response:
        delete_file(identity_of(request).site, file_id)
        return Response({"id": file_id, "object": "file", "deleted": True})


@extend_schema(tags=["Files"])
class FileContent(Resource):
    scopes = {"GET": Scope.JOBS_READ}

    @extend_schema(
        operation_id="get_file_content",
        summary="Download a file",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **refusals(FileMissing, UnreadableFile)},
    )
    def get(self, request: Request, file_id: str) -> HttpResponseBase:
        file = find_file(identity_of(request).site, file_id)
        # What a batch put out is made while it is sent; its length is known at the end.
        length = file.bytes if file.purpose == FilePurpose.BATCH else None
        return stream(request._request, content_of(file), "application/octet-stream", length=length)


def _in_order(rows: QuerySet[File], order: str, after: str | None) -> QuerySet[File]:
    """Return the rows in this order, those behind the one that `after` names."""
    is_rising = order == "asc"
    if after is not None:
        last = read_id(File.ID_PREFIX, after)
        rows = rows.filter(id__gt=last) if is_rising else rows.filter(id__lt=last)
    return rows.order_by("id" if is_rising else "-id")
