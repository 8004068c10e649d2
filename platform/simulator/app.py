"""The simulator as a bare ASGI application."""

from pathlib import Path
from typing import Any

from simulator.calls import Call, Receive, Scope, read_call
from simulator.connection import connection_of
from simulator.console import is_console, show
from simulator.deliver import Line, Send, deliver
from simulator.journal import Journal
from simulator.provider import Provider


class Simulator:
    """Needs `simulator.connection.SimulatorProtocol` under it: `python -m simulator` sees to that."""

    def __init__(self, journal: Path | None = None) -> None:
        self._provider = Provider(Journal(journal))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = await read_call(scope, receive)
        if call is None:
            return
        if is_console(call.path):
            await self._show(call, send)
        else:
            await self._provide(call, scope, send)

    async def _provide(self, call: Call, scope: Scope, send: Send) -> None:
        visit = self._provider.receive(call)
        plan = self._provider.plan(visit)
        connection = connection_of(scope)
        line = Line(connection, send, self._provider.journal, visit.entry)
        await deliver(plan.reply, plan.fault, plan.controls, line)
        if connection.lost:
            await connection.end()

    async def _show(self, call: Call, send: Send) -> None:
        page = show(call, self._provider)
        headers: list[tuple[bytes, Any]] = [
            (b"content-type", page.content_type),
            (b"content-length", b"%d" % len(page.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})


app = Simulator()
