"""The Celery application."""

import logging

from nightdesk.celery import app


def test_celery_does_not_change_the_log_level_of_the_settings() -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers)

    app.log.setup_logging_subsystem(loglevel=logging.DEBUG)

    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
