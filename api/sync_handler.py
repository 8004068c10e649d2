"""Django's ASGI handler with one hop to a thread and back per request."""

import asyncio
from typing import IO

from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.http import HttpRequest, HttpResponseBase
from django.urls import set_script_prefix

from api.asgi_types import ASGIReceive, ASGIScope, ASGISend


class SyncHandler(ASGIHandler):
    """Runs the middleware, the view and Django's signals of a request in `get_response`, which is synchronous.

    Django's own handler switches between event loop and thread for every middleware, for every signal and for closing,
    and starts a thread for every concurrent request, each with a database connection. That took more time than our
    views.
    """

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def handle(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        try:
            body_file = await self.read_body_of(scope, receive)
        except RequestAborted:
            return
        with body_file:
            request, response = self.create_request(scope, body_file)
            if request is not None:
                response = await self.get_response_async(request)
            assert response is not None
            if response.streaming:
                await self._stream_response(response, receive, send)
            else:
                # If the client has disconnected, the server discards the response; the request was processed.
                await self.send_response(response, send)

    async def read_body_of(self, scope: ASGIScope, receive: ASGIReceive) -> IO[bytes]:
        """Return the body; the caller closes it. Raises `RequestAborted` if the client disconnects."""
        return await self.read_body(receive)

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        assert isinstance(request, ASGIRequest)
        set_script_prefix(get_script_prefix(request.scope))
        signals.request_started.send(sender=self.__class__, scope=request.scope)
        response = super().get_response(request)
        if not response.streaming:
            # The content is complete; closing only sends the signal request_finished.
            response.close()
        return response

    async def _stream_response(self, response: HttpResponseBase, receive: ASGIReceive, send: ASGISend) -> None:
        """Send a streamed response until it is complete or the client disconnects."""
        sending = asyncio.create_task(self.send_response(response, send))
        disconnect = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, disconnect), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            disconnect.cancel()
            await asyncio.gather(sending, disconnect, return_exceptions=True)
            response.close()
