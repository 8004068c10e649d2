"""The Celery application."""

import logging

from nightdesk.celery import app


def test_logs_are_as_the_settings_say_whatever_level_celery_is_told() -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers)

    app.log.setup_logging_subsystem(loglevel=logging.DEBUG)

    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
