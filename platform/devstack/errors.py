"""Errors of the local stack. Their messages are printed to the terminal and say what to do.

* StackError
  + InvalidEnvironment  a variable has an invalid value, or contradicts another
  + PortTaken           another program listens on the port
  + AlreadyRunning      a stack already runs in this checkout
  + ServerNotAvailable  the wheel with the server is not installed, or not for this platform
  + ServerFailed        an embedded server cannot start, or does not respond
  + ProgramFailed       a supervised program exited, and restarting it does not help
  + DemoFailed          a step of the demo did not have the expected result
"""

from pathlib import Path


class StackError(Exception):
    """Base class. The message says what happened and what to do."""


class InvalidEnvironment(StackError):
    pass


class PortTaken(StackError):
    def __init__(self, port: int, what_to_do: str) -> None:
        super().__init__(
            f"Port {port} of 127.0.0.1 is in use by another program (`lsof -i :{port}` shows which). {what_to_do}"
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
            f"{server} cannot be started: the package {package} is not installed, or contains no server for this "
            "platform. Set DATABASE_URL and REDIS_URL to use your own servers."
        )


class ServerFailed(StackError):
    pass


class ProgramFailed(StackError):
    pass


class DemoFailed(StackError):
    pass
