"""Fixtures: the environment of the chaos tests' own processes."""

from pathlib import Path

import pytest
from django.db import connection

from nightdesk import env


@pytest.fixture
def environment(transactional_db: None) -> dict[str, str]:
    """The environment of a worker process on the test's database."""
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    root = Path(__file__).parents[2]
    return env.child_environment(
        {
            "DATABASE_URL": f"{url}/{database['NAME']}",
            "LOG_FORMAT": "console",
            "DEBUG": "false",
            "BASE_URL": "https://localhost",
            "PYTHONPATH": f"{root}:{root / 'platform'}",
        }
    )
