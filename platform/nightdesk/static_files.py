"""Style sheets and scripts of the admin and the docs page, straight from the installed packages.

There are few, and browsers keep them, so the desk serves them itself, on a laptop as in production. Where a proxy
stands in front, it may serve `/static/` from what `collectstatic` gathered, and this view is never reached.
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
    """Answer with the file of that name. Only files that an installed app lists as static are found."""
    found = finders.find(name)
    if not isinstance(found, str) or not Path(found).is_file():
        raise Http404
    about = Path(found).stat()
    etag = quote_etag(f"{about.st_mtime_ns:x}-{about.st_size:x}")
    response = get_conditional_response(request, etag=etag) or _read(Path(found))
    response["ETag"] = etag
    response["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return response


def _read(path: Path) -> HttpResponse:
    kind, encoding = mimetypes.guess_type(path.name)
    return HttpResponse(path.read_bytes(), content_type=kind if kind and not encoding else "application/octet-stream")
