"""Optional programs. Tests that need one are skipped without it, but fail in CI, which installs it."""

from typing import NoReturn

import pytest

from nightdesk import env


class NotInstalled(Exception):
    """The program is not installed."""

    def __init__(self, program: str, *, by: str) -> None:
        super().__init__(f"{program} is not installed, so nothing was tried with it: `make {by}` installs it")


def do_without(error: NotInstalled) -> NoReturn:
    """Skip the test with a reason, or fail in CI, where a skip would hide that it did not run."""
    if env.optional("CI") == "true":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))
