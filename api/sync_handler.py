"""Django's ASGI handler, with one way to a thread and back for a whole request."""

import asyncio
from typing import IO

from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.http import HttpRequest, HttpResponseBase
from django.urls import set_script_prefix

from api.asgi_types import ASGIReceive, ASGIScope, ASGISend


class SyncHandler(ASGIHandler):
    """Middleware, view and Django's signals of a request all run in `get_response`, which is synchronous.

    Django's own handler changes between loop and thread for every middleware, for every signal and for the closing,
    and starts a thread for every request that is under way, each of which then wants a database connection. That
    took more time than our views.
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
                await self._send_while_read(response, receive, send)
            else:
                # The server drops what is sent to a client that is gone; what it asked for has been done.
                await self.send_response(response, send)

    async def read_body_of(self, scope: ASGIScope, receive: ASGIReceive) -> IO[bytes]:
        """Return the body; the caller closes it. Raises `RequestAborted` if the client goes away."""
        return await self.read_body(receive)

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        assert isinstance(request, ASGIRequest)
        set_script_prefix(get_script_prefix(request.scope))
        signals.request_started.send(sender=self.__class__, scope=request.scope)
        response = super().get_response(request)
        if not response.streaming:
            # Its content is made; all that closing does is to tell that the request is finished.
            response.close()
        return response

    async def _send_while_read(self, response: HttpResponseBase, receive: ASGIReceive, send: ASGISend) -> None:
        """Send a long answer to its end, or until nobody is there any more to read it."""
        sending = asyncio.create_task(self.send_response(response, send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            response.close()
