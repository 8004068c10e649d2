"""Celery's broker settings for Redis, Valkey and RabbitMQ. Messages are doorbells, so losing one is harmless."""

from collections.abc import Mapping
from dataclasses import dataclass
from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import urlsplit

#: The only queue.
QUEUE = "doorbell"
#: Timeout of one operation on an open connection.
OPERATION_TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 3

REDIS_SCHEMES = ("redis", "rediss")
RABBITMQ_SCHEMES = ("amqp", "amqps")
SCHEMES = REDIS_SCHEMES + RABBITMQ_SCHEMES


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The settings of Celery that depend on the kind of broker."""

    transport_options: Mapping[str, Any]
    #: Where messages are sent; None: an exchange named after the queue.
    exchange: str | None = None
    #: None: Celery's default.
    queues: Mapping[str, Mapping[str, Any]] | None = None
    #: TLS options; None: as the URL says.
    ssl: Mapping[str, Any] | None = None
    #: Whether to publish again, on a new connection, if the old one was broken.
    retry_publish: bool = False
    #: Whether a worker leaves messages in the broker while it has no free thread.
    disable_prefetch: bool = False


def broker_settings_for(url: str) -> BrokerSettings:
    """Return the settings for the broker at this URL. System checks report an unknown scheme."""
    scheme = scheme_of(url)
    if scheme in RABBITMQ_SCHEMES:
        return _rabbitmq(encrypted=scheme == "amqps")
    return _redis(encrypted=scheme == "rediss")


def scheme_of(url: str) -> str:
    """Return the scheme of the URL."""
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
        # By default Celery would accept any certificate.
        ssl={"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True} if encrypted else None,
        disable_prefetch=True,
    )


def _rabbitmq(*, encrypted: bool) -> BrokerSettings:
    return BrokerSettings(
        {
            # A message that the broker did not accept fails immediately, not when the connection turns out broken.
            "confirm_publish": True,
            # Also for closing the connection: a broker without free memory or disk stops responding.
            "read_timeout": OPERATION_TIMEOUT_SECONDS,
            "write_timeout": OPERATION_TIMEOUT_SECONDS,
            "client_properties": {"connection_name": "nightdesk"},
        },
        # RabbitMQ's default exchange, to which every queue is bound: only the queue must be declared and permitted.
        exchange="",
        queues={
            QUEUE: {
                "queue_arguments": {
                    "x-queue-type": "quorum",
                    # While no worker listens, doorbells do not pile up: old ones are stale, and one is as good as many.
                    "x-message-ttl": 30_000,
                    "x-max-length": 1000,
                },
            }
        },
        # TLS verifies the host name of the certificate; None: the host name of the URL.
        ssl={"server_hostname": None} if encrypted else None,
        # An idle connection may have been broken unnoticed, by a restart of the broker or by a firewall.
        retry_publish=True,
    )
