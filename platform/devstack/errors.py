"""What can go wrong on a laptop, each in words for the person at the terminal.

* LocalError
  + BadEnvironment      a variable contradicts another, or is no value for its name
  + PortTaken           another program listens on the port
  + AlreadyRunning      a stack runs in this checkout
  + NotAvailable        there is no wheel with the server for this platform
  + ServerFailed        an embedded server cannot start, or does not answer
  + ProgramFailed       a supervised program ended, and starting it again does not help
  + DemoFailed          a step of the demo did not come to what it must
"""

from pathlib import Path


class StackError(Exception):
    """The base; its message says what happened and what to do."""


class InvalidEnvironment(StackError):
    pass


class PortTaken(StackError):
    def __init__(self, port: int, what_to_do: str) -> None:
        super().__init__(
            f"Port {port} of 127.0.0.1 is taken by another program (see which: `lsof -i :{port}`). {what_to_do}"
        )
        self.port = port


class AlreadyRunning(StackError):
    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"Nightdesk already runs in this checkout, with its data in {folder}. Stop that one first (Ctrl-C)."
        )


class ServerNotAvailable(StackError):
    def __init__(self, server: str, package: str) -> None:
        super().__init__(
            f"{server} cannot be started here: the package {package} is not installed, or has no server for this "
            "platform. Set DATABASE_URL and REDIS_URL to use servers of your own."
        )


class ServerFailed(StackError):
    pass


class ProgramFailed(StackError):
    pass


class DemoFailed(StackError):
    pass
