"""What Celery is told of its broker: Redis and Valkey, or RabbitMQ. What it carries is a doorbell in either case."""

from collections.abc import Mapping
from dataclasses import dataclass
from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import urlsplit

#: The one queue, and the name of what is declared for it.
QUEUE = "doorbell"
#: How long a broker may take for one step, on a connection that is open.
OPERATION_TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 3

REDIS_SCHEMES = ("redis", "rediss")
RABBITMQ_SCHEMES = ("amqp", "amqps")
SCHEMES = REDIS_SCHEMES + RABBITMQ_SCHEMES


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The settings of Celery that differ from one kind of broker to the other."""

    transport_options: Mapping[str, Any]
    #: Where messages are sent; None makes one of the queue's name.
    exchange: str | None = None
    #: None where the plain default does.
    queues: Mapping[str, Mapping[str, Any]] | None = None
    #: What TLS is told; None leaves it to the address.
    ssl: Mapping[str, Any] | None = None
    #: Whether to try once more, on a new connection, what an old one did not carry.
    retry_publish: bool = False
    #: Whether a worker may leave in the broker what it has no thread for.
    disable_prefetch: bool = False


def broker_settings_for(url: str) -> BrokerSettings:
    """Return what suits the broker at the address. One of a kind we do not know is reported by the system checks."""
    scheme = scheme_of(url)
    if scheme in RABBITMQ_SCHEMES:
        return _rabbitmq(encrypted=scheme == "amqps")
    return _redis(encrypted=scheme == "rediss")


def scheme_of(url: str) -> str:
    """Return the kind of the address."""
    return urlsplit(url).scheme


def _redis(*, encrypted: bool) -> BrokerSettings:
    return BrokerSettings(
        {
            "global_keyprefix": "nightdesk:",
            "visibility_timeout": 600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "client_name": "nightdesk",
        },
        # Celery would take any certificate, of whomever.
        ssl={"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True} if encrypted else None,
        disable_prefetch=True,
    )


def _rabbitmq(*, encrypted: bool) -> BrokerSettings:
    return BrokerSettings(
        {
            # A ring that the broker did not take is known at once, and not when the connection is found broken.
            "confirm_publish": True,
            # Not even for a goodbye is it waited longer: one that has no memory or disk left falls silent.
            "read_timeout": OPERATION_TIMEOUT_SECONDS,
            "write_timeout": OPERATION_TIMEOUT_SECONDS,
            "client_properties": {"connection_name": "nightdesk"},
        },
        # RabbitMQ's own, to which every queue is bound: so there is one thing to declare, and to allow.
        exchange="",
        queues={
            QUEUE: {
                "queue_arguments": {
                    "x-queue-type": "quorum",
                    # While no worker listens, rings do not pile up: old ones are stale, and many say no more than one.
                    "x-message-ttl": 30_000,
                    "x-max-length": 1000,
                },
            }
        },
        # With a host name, TLS checks that the certificate is that host's; None takes it from the address.
        ssl={"server_hostname": None} if encrypted else None,
        # Nobody notices that a connection broke while no ring was sent: by a restart, or by a firewall's patience.
        retry_publish=True,
    )
