"""Logging: one JSON object per line (or text for a console), with bound ids, and secrets redacted."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"

#: Fields with secrets or with texts of people. Their values are never logged.
SENSITIVE_FIELDS = re.compile(
    r"(?i)^(authorization|cookie|x-api-key|api[-_]?key|x-signature|x-sig|.*secret.*|.*password.*|.*token|"
    r"prompt|messages?|content|body|payload|answer|result|completion|input|output)$"
)

#: Secrets by their shape, in any field: our keys and secrets, vendors' keys, bearer tokens, URL passwords.
SECRET_PATTERNS = re.compile(
    r"nd_[0-9A-Za-z_]{8,}|whsec_[0-9A-Za-z+/=]+|sk-[0-9A-Za-z_-]{6,}|(?i:bearer)\s+[^\s'\",]+"
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)


def configure(*, console: bool, level: str) -> dict[str, Any]:
    """Configure structlog, and return the `LOGGING` of Django that formats the standard library's logs alike."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_secrets,
    ]
    structlog.configure(
        # Events below the level are dropped first: formatting a line may cost a busy worker more than a query.
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "nightdesk": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _renderer(console),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "nightdesk"}},
        "root": {"handlers": ["stderr"], "level": level},
        # Their INFO lines repeat every request or message, which we log with ids.
        "loggers": {
            # It warns about every attempt to connect; we log once that the database is unavailable.
            "psycopg.pool": {"level": "ERROR"},
        }
        | {
            name: {"level": "WARNING"}
            for name in (
                "django.request",
                "httpx",
                "asyncio",
                "kombu",
                "amqp",
                "celery.worker.strategy",
                "celery.app.trace",
                "aiohttp",
            )
        },
    }


def redact_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Redact fields that must not be logged, and secrets by their shape in all others (a structlog processor)."""
    return {key: _redact(key, value) for key, value in event.items()}


def _redact(key: str, value: Any) -> Any:
    if SENSITIVE_FIELDS.match(key):
        return REDACTED
    if isinstance(value, str):
        return SECRET_PATTERNS.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {inner: _redact(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact("", item) for item in value]
    if isinstance(value, BaseException):
        return SECRET_PATTERNS.sub(REDACTED, f"{type(value).__name__}: {value}")
    return value


def _renderer(console: bool) -> Processor:
    if console:
        # The supervisor prefixes each line with its process, and decides about colors.
        return structlog.dev.ConsoleRenderer(colors=False, pad_event_to=28)
    return structlog.processors.JSONRenderer()
