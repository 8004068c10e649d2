"""A broker carries the doorbell, and needs only the rights that docs/how-to/choose-a-broker.md lists."""

from pathlib import Path

import pytest
import redis
from amqp import ChannelError
from kombu import Connection
from pytest_celery import CeleryTestBroker

from nightdesk.broker import QUEUE
from tests.flows.conftest import ReceiverProcess, Web, start_worker
from tests.polling import wait_for


def rings_in(broker_kind: str, url: str) -> int:
    """The number of queued doorbell messages."""
    return rings_in_rabbitmq(url) if broker_kind == "rabbitmq" else rings_in_redis(url)


def rings_in_redis(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.llen(f"nightdesk:{QUEUE}"))


def rings_in_rabbitmq(url: str) -> int:
    with Connection(url) as connection:
        try:
            return int(connection.channel().queue_declare(QUEUE, passive=True).message_count)
        except ChannelError:  # there is no queue yet
            return 0


@pytest.mark.every_broker
def test_a_doorbell_waits_in_the_broker_until_a_worker_receives_it(
    environment: dict[str, str],
    broker_kind: str,
    celery_broker: CeleryTestBroker,
    web: Web,
    receiver: ReceiverProcess,
    tmp_path: Path,
) -> None:
    url = celery_broker.container.url
    before = rings_in(broker_kind, url)
    job_id = web.submit()
    wait_for(lambda: rings_in(broker_kind, url) > before)

    worker = start_worker(environment, tmp_path)
    try:
        wait_for(lambda: rings_in(broker_kind, url) == 0, seconds=60)
        assert web.ended(job_id)["state"] == "succeeded"
        (webhook,) = wait_for(lambda: receiver.received(job_id))
        assert (webhook["type"], webhook["verified"]) == ("job.succeeded", True)
    finally:
        worker.teardown()
