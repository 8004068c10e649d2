"""Threads that decode the first bodies concurrently, as when a busy desk starts."""

import os
import subprocess
import sys

import pytest

from devstack.stack import ROOT

CHAT = '{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}'
COUNTED = '{"model": "m", "messages": [{"role": "user", "content": "Hello."}]}'
EMBEDDING = '{"model": "m", "input": "Hello."}'

#: Threads that switch as often as possible and all start at the same moment.
RACE = """
import sys, threading
import {module} as module
sys.setswitchinterval(1e-6)
start, answers = threading.Barrier(16), []
def read():
    start.wait()
    answers.append(module.{read}({body!r}))
threads = [threading.Thread(target=read) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(answers))
"""


@pytest.mark.parametrize(
    ("module", "read", "body"),
    [
        ("providers.dialects.openai", "parse_chat", CHAT),
        ("providers.dialects.openai", "parse_embedding", EMBEDDING),
        ("providers.dialects.anthropic", "decode_chat", CHAT),
        ("providers.dialects.anthropic", "decode_count_tokens", COUNTED),
        ("providers.dialects.envelope", "decode_envelope", CHAT),
    ],
)
def test_threads_may_decode_the_first_bodies_concurrently(module: str, read: str, body: str) -> None:
    """Without `precompile_decoders` msgspec crashes the process in most runs, with a segmentation fault."""
    code = RACE.format(module=module, read=read, body=body.encode())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "platform")))}

    for _ in range(3):
        made = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert (made.returncode, made.stdout.strip()) == (0, "16"), made.stderr[-500:]
