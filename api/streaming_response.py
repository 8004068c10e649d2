"""Answers that are too long to be held: made piece by piece, and sent as fast as the client takes them."""

from collections.abc import AsyncIterator, Iterator
from itertools import chain

from django.http import HttpRequest, StreamingHttpResponse

from core.database_threads import DatabaseThreadPool

#: Small pieces (lines) are gathered up to this; larger ones are sent as they come.
BLOCK_BYTES = 65_536


def streaming_response(
    request: HttpRequest, pieces: Iterator[bytes], content_type: str, *, length: int | None = None
) -> StreamingHttpResponse:
    """Answer with these pieces. `api.asgi` takes each in a thread, and waits for the client in between.

    So no piece may leave anything open in the database for the next: no cursor, no transaction. What goes wrong with
    the first is raised here, and has an answer of its own; later it cuts the answer off, which never ends as if whole.
    """
    blocks = _group_into_blocks(iter(()) if request.method == "HEAD" else pieces)
    response = StreamingHttpResponse(chain([next(blocks, b"")], blocks), content_type=content_type)
    if length is not None:
        response["Content-Length"] = str(length)
    return response


async def iterate_in_threads(threads: DatabaseThreadPool, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the blocks; each is made in one of the threads."""
    while (block := await threads.run(next, blocks, None)) is not None:
        yield block


def _group_into_blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    gathered, size = [], 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
