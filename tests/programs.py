"""Programs that not every machine has. Tests that need one are skipped without it; but not in CI, which installs it."""

from typing import NoReturn

import pytest

from nightdesk import env


class NotInstalled(Exception):
    """A program is not on this machine."""

    def __init__(self, program: str, *, by: str) -> None:
        super().__init__(f"{program} is not installed, so nothing was tried with it: `make {by}` installs it")


def do_without(error: NotInstalled) -> NoReturn:
    """Skip the test and say why, or fail where CI runs it: there a skip would hide that nothing was tried."""
    if env.optional("CI") == "true":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))
