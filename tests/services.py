"""A pytest plugin that starts PostgreSQL and Valkey before Django reads its settings.

With DATABASE_URL and REDIS_URL set, those servers are used instead. With `-n`, each of pytest-xdist's processes runs
this, and so has servers of its own: no test can affect another one's server.
"""

import atexit
import base64
import gc
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
sys.path.append(str(ROOT / "platform"))

import pytest  # noqa: E402 (the path comes first)

from devstack.postgres import postgres_server  # noqa: E402
from devstack.valkey import valkey_server  # noqa: E402
from nightdesk import env  # noqa: E402
from tests.ports import own_port  # noqa: E402

_servers = ExitStack()
# When Ctrl-C interrupts pytest's own cleanup.
atexit.register(_servers.close)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the servers that are not configured, and put their addresses into the environment."""
    env.set_variables(
        {
            "ENCRYPTION_KEYS": "test:" + base64.b64encode(b"a key of the tests, 32 bytes big").decode(),
            "SECRET_KEY": "a key of the tests",
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_ALLOWED_PORTS": "0",
            "JOB_RETRY_BASE_SECONDS": "0",
            # Tests configure their own providers.
            **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"), ""),
        }
    )
    folder = Path(_servers.enter_context(tempfile.TemporaryDirectory(prefix="nightdesk-tests-")))
    # No certificate is trusted. Every new HTTP client would load all root certificates, 20 ms each time, and
    # polling makes many clients. Tests of TLS bring their own certificate.
    (folder / "certificates").mkdir()
    env.set_variables({"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(folder / "certificates")})
    if env.optional("DATABASE_URL") and env.optional("REDIS_URL") or _only_hands_out(early_config):
        return
    postgres = _servers.enter_context(postgres_server(folder / "postgres", own_port(), durable=False))
    valkey = _servers.enter_context(valkey_server(folder / "valkey", own_port(), durable=False))
    env.set_variables({"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url})


def pytest_collection(session: pytest.Session) -> None:
    # Modules are loaded now, and none of it is garbage.
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Enable garbage collection again without the loaded modules: scanning them takes a tenth of all processor time."""
    gc.freeze()
    gc.enable()


def _only_hands_out(config: pytest.Config) -> bool:
    """Whether this is pytest-xdist's controller, which runs no test itself."""
    return bool(getattr(config.known_args_namespace, "numprocesses", None)) and not env.optional("PYTEST_XDIST_WORKER")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stop the servers when everything that uses them has stopped."""
    _servers.close()
