"""The brokers that the flows run on, each a process of its own with its data in a folder.

Not the machine's services: tests kill these brokers, and they hold no other messages.
"""

import json
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from core.reachability import is_redis_reachable
from devstack import private_files
from devstack.embedded import EmbeddedServer
from devstack.program import Program
from devstack.valkey import prepare_valkey
from tests.flows.local_nodes import LocalBroker, LocalProcess
from tests.ports import own_port
from tests.programs import NotInstalled

#: Where Debian's package puts it. The program of this name on the PATH insists on the service's Unix user.
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: The rights that docs/how-to/choose-a-broker.md promises to be enough.
REDIS_RIGHTS = "~nightdesk:* +@all -@admin -@dangerous"
USER, PASSWORD, VIRTUAL_HOST = "desk", "rung-in-tests", "nightdesk"


class Brokers:
    """The brokers of one test run: each starts at its first use, and again after it was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, LocalBroker] = {}
        self._all = ExitStack()

    def at(self, kind: str) -> LocalBroker:
        """Return a responding broker of the kind. Raises `NotInstalled`."""
        found = self._running.get(kind)
        if found is None or not found.is_running:
            folder = self._folder / f"{kind}-{own_port()}"
            folder.mkdir()
            found = self._running[kind] = self._all.enter_context(KINDS[kind](folder))
            found.ready()
        return found

    def close(self) -> None:
        self._all.close()


@contextmanager
def _valkey(folder: Path) -> Iterator[LocalBroker]:
    with _serving(_prepare_valkey(folder)) as broker:
        yield broker


@contextmanager
def _redis(folder: Path) -> Iterator[LocalBroker]:
    program = shutil.which("redis-server")
    if program is None:
        raise NotInstalled("redis-server", by="brokers")
    valkey = _prepare_valkey(folder)
    # It takes the same options as Valkey.
    argv = (program, *valkey.program.argv[1:])
    with _serving(replace(valkey, program=replace(valkey.program, name="redis", argv=argv))) as broker:
        yield broker


def _prepare_valkey(folder: Path) -> EmbeddedServer:
    """Prepare a Valkey with a user of least privilege: only what the desk needs."""
    valkey = prepare_valkey(folder, own_port(), durable=False)
    configuration = Path(valkey.program.argv[1])
    private_files.write_private(
        configuration, configuration.read_text() + f"user {USER} on >{PASSWORD} {REDIS_RIGHTS}\n"
    )
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{valkey.port}/0"
    return replace(valkey, url=url, is_ready=lambda: is_redis_reachable(url))


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[LocalBroker]:
    port_mapper = shutil.which("epmd")
    if port_mapper is None or not RABBITMQ_SERVER.exists():
        raise NotInstalled("rabbitmq-server", by="brokers")
    node = _Node(folder, own_port(), own_port(), own_port())
    # It would start one itself, which outlives the tests.
    mapper = Program(
        "epmd", (port_mapper, "-port", str(node.mapper_port), "-address", "127.0.0.1"), node.environment, folder
    )
    with _running(mapper), _serving(node.prepare()) as broker:
        yield broker


@dataclass(frozen=True, slots=True)
class _Node:
    """A RabbitMQ of our own: it shares no name, no port, no file and no cookie with another."""

    folder: Path
    port: int
    peers_port: int
    mapper_port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LC_ALL": "C.UTF-8",
            # For the cookie.
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"tests-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.peers_port),
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            # The script then becomes the server instead of supervising it: signals reach the right process.
            "detached": "1",
        }

    def prepare(self) -> EmbeddedServer:
        private_files.write_private(self.folder / "rabbitmq.conf", self._configuration())
        private_files.write_private(self.folder / "enabled_plugins", "[].")
        private_files.write_private(self.folder / "definitions.json", json.dumps(DEFINITIONS))
        url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{VIRTUAL_HOST}"
        program = Program("rabbitmq", (str(RABBITMQ_SERVER),), self.environment, self.folder)
        return EmbeddedServer(program, self.port, url, partial(_lets_in, url))

    def _configuration(self) -> str:
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "load_definitions": str(self.folder / "definitions.json"),
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            # The machine's free disk and memory are not part of the test.
            "disk_free_limit.absolute": "10MB",
            "vm_memory_high_watermark.absolute": "1GB",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _hashed(password: str) -> str:
    """Return the password as RabbitMQ stores it: four bytes of salt, and their SHA-256 with it."""
    salt = b"salt"
    return b64encode(salt + sha256(salt + password.encode()).digest()).decode()


#: One user, with the rights that the same page promises to be enough.
DEFINITIONS = {
    "vhosts": [{"name": VIRTUAL_HOST}],
    "users": [
        {
            "name": USER,
            "password_hash": _hashed(PASSWORD),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }
    ],
    "permissions": [
        {
            "user": USER,
            "vhost": VIRTUAL_HOST,
            "configure": "^doorbell$",
            "write": r"^amq\.default$",
            "read": "^doorbell$",
        }
    ],
}


def _lets_in(url: str) -> bool:
    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=0)
    except OperationalError:
        return False
    return True


@contextmanager
def _running(program: Program) -> Iterator[LocalProcess]:
    process = LocalProcess(program, program.folder)
    try:
        yield process
    finally:
        process.destroy()


@contextmanager
def _serving(embedded: EmbeddedServer) -> Iterator[LocalBroker]:
    with _running(embedded.program) as process:
        yield LocalBroker(process, embedded)


#: By the names that `--brokers` takes; the first is in every installation.
KINDS: dict[str, Callable[[Path], AbstractContextManager[LocalBroker]]] = {
    "valkey": _valkey,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
