"""Older major versions of the SDKs, which many sites still use (`requirements/older-sdk.txt`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devstack.stack import ROOT
from nightdesk import env
from tests.api.live.sdks import Sdks

pytestmark = pytest.mark.django_db

FOLDER = ROOT / ".venv" / "older-sdk"
SCRIPT = Path(__file__).parent / "older_sdks.py"

SAME = {
    "plain": True,
    "request_id": "req_",
    "streamed": True,
    "usage": True,
    "tools": ["get_weather"],
    "models": True,
    "unknown": "NotFoundError",
}
OPENAI = {**SAME, "continued": ["stop", True], "parsed": "Mood", "vectors": [1536, 1536], "cut": "APIError"}
ANTHROPIC = {**SAME, "continued": ["end_turn", True], "counted": True, "cut": "APIStatusError"}


def test_older_major_versions_of_the_sdks_work_unmodified(sdks: Sdks) -> None:
    assert FOLDER.exists(), "`make test` installs the older SDKs, and then runs the tests."

    made = subprocess.run(
        [sys.executable, SCRIPT, sdks.url, sdks.key],
        env=env.child_environment({"PYTHONPATH": str(FOLDER)}),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert made.returncode == 0, made.stderr
    said: dict[str, Any] = json.loads(made.stdout)
    majors = [version.partition(".")[0] for version in said.pop("versions")]
    assert majors == ["1", "0"]
    assert said == {
        "openai to openai": OPENAI,
        "openai to anthropic": OPENAI,
        "anthropic to openai": ANTHROPIC,
        "anthropic to anthropic": ANTHROPIC,
    }
