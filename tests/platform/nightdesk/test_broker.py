"""Celery's settings by the URL of its broker."""

from ssl import CERT_REQUIRED

import pytest

from nightdesk.broker import QUEUE, broker_settings_for
from nightdesk.worker import DoorbellConsumer


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "rediss://:secret@redis.example:6380/1"])
def test_redis_broker_has_redis_transport_options(url: str) -> None:
    broker = broker_settings_for(url)

    assert broker.transport_options["global_keyprefix"] == "nightdesk:"
    assert broker.disable_prefetch
    assert broker.queues is None
    assert not broker.retry_publish


@pytest.mark.parametrize("url", ["amqp://desk:secret@127.0.0.1:5672/nightdesk", "amqps://desk:secret@mq.example/desk"])
def test_rabbitmq_broker_has_one_quorum_queue_on_the_default_exchange(url: str) -> None:
    broker = broker_settings_for(url)

    assert broker.queues is not None
    assert list(broker.queues) == [QUEUE]
    assert broker.queues[QUEUE]["queue_arguments"]["x-queue-type"] == "quorum"
    assert broker.exchange == ""
    assert broker.transport_options["confirm_publish"]
    assert broker.retry_publish
    assert not broker.disable_prefetch


def test_tls_verifies_the_host_of_the_certificate() -> None:
    assert broker_settings_for("rediss://cache.example/0").ssl == {
        "ssl_cert_reqs": CERT_REQUIRED,
        "ssl_check_hostname": True,
    }
    assert broker_settings_for("redis://cache.example/0").ssl is None
    assert broker_settings_for("amqps://mq.example/desk").ssl == {"server_hostname": None}
    assert broker_settings_for("amqp://mq.example/desk").ssl is None


def test_a_worker_declares_no_queues_for_delayed_messages() -> None:
    steps = DoorbellConsumer.Blueprint.default_steps

    assert any(step.endswith(":Tasks") for step in steps)
    assert not any(step.endswith(":DelayedDelivery") for step in steps)
