"""The simulator as a bare ASGI application."""

from pathlib import Path
from typing import Any

from simulator.calls import AsgiReceive, AsgiScope, Call, read_call
from simulator.connection import connection_of
from simulator.console import is_console, render
from simulator.journal import Journal
from simulator.provider import SimulatedProvider
from simulator.send import AsgiSend, ResponseWriter, send_response


class Simulator:
    """The application. Requires `simulator.connection.SimulatorProtocol`, with which `simulator.__main__` runs it."""

    def __init__(self, journal: Path | None = None) -> None:
        self._provider = SimulatedProvider(Journal(journal))

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        call = await read_call(scope, receive)
        if call is None:
            return
        if is_console(call.path):
            await self._show_console(call, send)
        else:
            await self._answer(call, scope, send)

    async def _answer(self, call: Call, scope: AsgiScope, send: AsgiSend) -> None:
        context = self._provider.receive(call)
        plan = self._provider.plan(context)
        connection = connection_of(scope)
        writer = ResponseWriter(connection, send, self._provider.journal, context.entry)
        await send_response(plan.response, plan.fault, plan.controls, writer)
        if connection.is_lost:
            await connection.wait_closed()

    async def _show_console(self, call: Call, send: AsgiSend) -> None:
        page = render(call, self._provider)
        headers: list[tuple[bytes, Any]] = [
            (b"content-type", page.content_type),
            (b"content-length", b"%d" % len(page.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})


app = Simulator()
