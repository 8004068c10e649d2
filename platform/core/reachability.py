"""Reachability of the servers that carry doorbells, Redis and RabbitMQ, checked with short timeouts."""

from urllib.parse import urlsplit

import redis
import structlog
from kombu import Connection

log = structlog.get_logger(__name__)

#: Timeout of each step of a check.
TIMEOUT_SECONDS = 0.5


def is_redis_reachable(url: str) -> bool:
    """Return whether Redis or Valkey responds at the URL and accepts our credentials."""
    client = redis.Redis.from_url(url, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS)
    try:
        return bool(client.ping())
    except redis.RedisError as error:
        log.warning("redis_unreachable", error=type(error).__name__)
        return False
    finally:
        client.close()


def is_broker_reachable(url: str) -> bool:
    """Return whether the broker, RabbitMQ or Redis, responds at the URL and accepts our credentials."""
    return _is_rabbitmq_reachable(url) if urlsplit(url).scheme.startswith("amqp") else is_redis_reachable(url)


def _is_rabbitmq_reachable(url: str) -> bool:
    timeouts = {"read_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}
    tls = {"server_hostname": None} if url.startswith("amqps:") else False
    connection = Connection(url, ssl=tls, connect_timeout=TIMEOUT_SECONDS, transport_options=timeouts)
    try:
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        return True
    except (*connection.connection_errors, *connection.channel_errors) as error:
        log.warning("rabbitmq_unreachable", error=type(error).__name__)
        return False
    finally:
        connection.release()
