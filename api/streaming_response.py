"""Responses that are too large for memory: generated block by block, at the speed at which the client reads."""

from collections.abc import AsyncIterator, Iterator
from itertools import chain

from django.http import HttpRequest, StreamingHttpResponse

from core.database_threads import DatabaseThreadPool

#: Small pieces (lines) are joined into blocks of this size; larger ones are sent unchanged.
BLOCK_BYTES = 65_536


def streaming_response(
    request: HttpRequest, pieces: Iterator[bytes], content_type: str, *, length: int | None = None
) -> StreamingHttpResponse:
    """Return a response that consists of these pieces.

    `api.asgi` generates each block in any thread of a pool, and waits for the client in between (backpressure). So the
    iterator must not keep a cursor or a transaction open from one piece to the next. The first block is generated here,
    so that its exceptions become an error response. A later exception interrupts the response, which then never looks
    complete.
    """
    blocks = _group_into_blocks(iter(()) if request.method == "HEAD" else pieces)
    response = StreamingHttpResponse(chain([next(blocks, b"")], blocks), content_type=content_type)
    if length is not None:
        response["Content-Length"] = str(length)
    return response


async def iterate_in_threads(threads: DatabaseThreadPool, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the blocks; each one is generated in a thread of the pool."""
    while (block := await threads.run(next, blocks, None)) is not None:
        yield block


def _group_into_blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffered, size = [], 0
    for piece in pieces:
        buffered.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            yield b"".join(buffered)
            buffered, size = [], 0
    if buffered:
        yield b"".join(buffered)
