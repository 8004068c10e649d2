"""Serves style sheets and scripts of the admin and the docs page from the installed packages.

There are few, and browsers cache them, so the web process serves them itself, in production too. A proxy in front may
serve `/static/` from the output of `collectstatic` instead.
"""

import mimetypes
from pathlib import Path

from django.contrib.staticfiles import finders
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from django.views.decorators.http import require_safe

MAX_AGE_SECONDS = 3600


@require_safe
def serve(request: HttpRequest, name: str) -> HttpResponse:
    """Return the static file with this name. Only static files of installed apps are found."""
    found = finders.find(name)
    if not isinstance(found, str) or not Path(found).is_file():
        raise Http404
    status = Path(found).stat()
    etag = quote_etag(f"{status.st_mtime_ns:x}-{status.st_size:x}")
    response = get_conditional_response(request, etag=etag) or _read(Path(found))
    response["ETag"] = etag
    response["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return response


def _read(path: Path) -> HttpResponse:
    kind, encoding = mimetypes.guess_type(path.name)
    return HttpResponse(path.read_bytes(), content_type=kind if kind and not encoding else "application/octet-stream")
