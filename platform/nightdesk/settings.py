"""The settings, in one file. Defaults suit a laptop; production needs only variables (`compose/env.example`)."""

from pathlib import Path

from core import logging
from core.crash import read_crash_at
from nightdesk import broker, env

ROOT = Path(__file__).resolve().parents[2]

env.refuse_renamed(
    {
        "BODY_WAIT_SECONDS": "BODY_READ_TIMEOUT_SECONDS",
        "BREAKER_REST_SECONDS": "BREAKER_COOLDOWN_SECONDS",
        "CACHE_BODY_BYTES": "CACHE_MAX_BODY_BYTES",
        "CACHE_SECONDS": "CACHE_TTL_SECONDS",
        "DATABASE_STATEMENT_SECONDS": "DATABASE_STATEMENT_TIMEOUT_SECONDS",
        "IDEMPOTENCY_SECONDS": "IDEMPOTENCY_TTL_SECONDS",
        "JOB_ATTEMPT_SECONDS": "JOB_ATTEMPT_TIMEOUT_SECONDS",
        "LIVE_SECONDS": "LIVE_TIMEOUT_SECONDS",
        "LIVE_WITHOUT_REDIS": "LIVE_FAIL_MODE",
        "SOCKET_IDLE_SECONDS": "WEBSOCKET_IDLE_SECONDS",
        "SOCKET_PONG_SECONDS": "WEBSOCKET_PONG_SECONDS",
        "SOCKET_PROOF_SECONDS": "WEBSOCKET_AUTH_SECONDS",
        "SOCKET_STREAMS": "WEBSOCKET_MAX_STREAMS",
        "SOCKET_UNREAD_BYTES": "WEBSOCKET_MAX_UNREAD_BYTES",
        "STREAM_LOG_BYTES": "STREAM_LOG_MAX_BYTES",
        "STREAM_LOG_SECONDS": "STREAM_LOG_TTL_SECONDS",
        "TICKET_SECONDS": "TICKET_TTL_SECONDS",
    }
)
VERSION = "0.1.0"

# The site and its keys

DEBUG = env.flag("DEBUG", True)
SECRET_KEY = env.secret("SECRET_KEY", "insecure-development-key")
#: `id:base64 of 32 bytes`, comma-separated. The first encrypts; all of them decrypt.
ENCRYPTION_KEYS = env.secret("ENCRYPTION_KEYS", "dev:aW5zZWN1cmUtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU=")
#: Public URL of this gateway; used in links only, never for a decision.
BASE_URL = env.text("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = [BASE_URL] if BASE_URL.startswith("https://") else []
#: Number of trusted proxies that append to X-Forwarded-For; 0 ignores the header.
TRUSTED_PROXY_COUNT = env.number("TRUSTED_PROXY_COUNT", 0)

# Applications

INSTALLED_APPS = [
    # First, so that its templates override the theme's.
    "nightdesk",
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "nightdesk.admin.config.NightdeskAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "tenants",
    "metering",
    "inference",
    "webhooks",
    "jobs",
    "api",
]
MIDDLEWARE = [
    "api.cors_middleware.CorsMiddleware",
    "api.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "nightdesk.urls"
ASGI_APPLICATION = "nightdesk.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "nightdesk.formats"
STATIC_URL = "static/"
#: Where the admin's login page leads to if it was opened by itself.
LOGIN_REDIRECT_URL = "admin:index"
STATIC_ROOT = ROOT / "staticfiles"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Browser security (the admin and the docs page)

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BASE_URL.startswith("https://")
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_HSTS_SECONDS = 31_536_000 if BASE_URL.startswith("https://") else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXY_COUNT else None

# Postgres and Redis

DATABASE_POOL_SIZE = env.number("DATABASE_POOL_SIZE", 16, at_least=4)
#: How long a request waits for a database connection before it responds with 503.
DATABASE_WAIT_SECONDS = env.number("DATABASE_WAIT_SECONDS", 3, at_least=1)
_database = env.database("DATABASE_URL", "postgresql://nightdesk:nightdesk@127.0.0.1:5432/nightdesk")
#: statement_timeout of Postgres; 0 (no limit) for a long migration.
DATABASE_STATEMENT_TIMEOUT_SECONDS = env.number("DATABASE_STATEMENT_TIMEOUT_SECONDS", 30)
_database["OPTIONS"] = {
    "connect_timeout": str(DATABASE_WAIT_SECONDS),
    # A process that hangs or disappears within a transaction must not hold its locks forever, nor may a server that
    # stopped responding block its clients.
    "options": f"-c idle_in_transaction_session_timeout=10s -c statement_timeout={DATABASE_STATEMENT_TIMEOUT_SECONDS}s",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "pool": {
        "min_size": 1,
        "max_size": DATABASE_POOL_SIZE,
        "timeout": DATABASE_WAIT_SECONDS,
        # The pool doubles its pauses between connection attempts. A short limit restarts them, so they stay short.
        "reconnect_timeout": DATABASE_WAIT_SECONDS,
    },
    **_database["OPTIONS"],  # type: ignore[dict-item] # the URL overrides
}
# An idle connection that broke is replaced before it is used, instead of failing a request.
_database["CONN_HEALTH_CHECKS"] = True
DATABASES = {"default": _database}
REDIS_URL = env.secret("REDIS_URL", "redis://127.0.0.1:6379/0")

# Celery runs the worker processes. Its messages are doorbells (docs/decisions/0001).

CELERY_BROKER_URL = env.secret("BROKER_URL") or REDIS_URL
_broker = broker.broker_settings_for(CELERY_BROKER_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = _broker.transport_options
CELERY_BROKER_USE_SSL = _broker.ssl
CELERY_BROKER_CONNECTION_TIMEOUT = broker.CONNECT_TIMEOUT_SECONDS
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_POOL_LIMIT = 4
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_PUBLISH_RETRY = _broker.retry_publish
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = broker.QUEUE
CELERY_TASK_DEFAULT_EXCHANGE = _broker.exchange
CELERY_TASK_QUEUES = _broker.queues
CELERY_WORKER_CONSUMER = "nightdesk.worker:DoorbellConsumer"
CELERY_WORKER_DISABLE_PREFETCH = _broker.disable_prefetch
#: Tasks only ring the doorbell; an event loop in another thread of the process does the work.
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = 2
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 30
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False

# Providers. Keys set here add to the providers stored in the database.

OPENAI_API_KEY = env.secret("OPENAI_API_KEY")
OPENAI_BASE_URL = env.text("OPENAI_BASE_URL", "https://api.openai.com/v1")
ANTHROPIC_API_KEY = env.secret("ANTHROPIC_API_KEY")
ANTHROPIC_BASE_URL = env.text("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
AZURE_OPENAI_API_KEY = env.secret("AZURE_OPENAI_API_KEY")
AZURE_OPENAI_ENDPOINT = env.text("AZURE_OPENAI_ENDPOINT")
#: URL of the simulator; set by `make run`, empty in production.
SIMULATOR_URL = env.text("SIMULATOR_URL").rstrip("/")
#: Circuit breaker of a provider key: opens after this many failures, if they are at least half of its calls, …
BREAKER_FAILURES = env.number("BREAKER_FAILURES", 5, at_least=1)
#: … within this window …
BREAKER_WINDOW_SECONDS = env.number("BREAKER_WINDOW_SECONDS", 30, at_least=1)
#: … and stays open for this cooldown, unless the provider sends Retry-After. Doubles each time, up to five minutes.
BREAKER_COOLDOWN_SECONDS = env.number("BREAKER_COOLDOWN_SECONDS", 10, at_least=1)

# Jobs

#: Concurrent jobs of one worker process.
JOB_SLOTS = env.number("JOB_SLOTS", 500, at_least=1)
#: The queues that this worker serves (`default`, `batch`); empty: all.
JOB_QUEUES = env.words("JOB_QUEUES")
JOB_MAX_ATTEMPTS = env.number("JOB_MAX_ATTEMPTS", 8, at_least=1)
#: Timeout of one attempt, over all its calls.
JOB_ATTEMPT_TIMEOUT_SECONDS = env.number("JOB_ATTEMPT_TIMEOUT_SECONDS", 600, at_least=1)
#: Backoff before the second attempt; doubles with each attempt, with full jitter, up to the cap.
JOB_RETRY_BASE_SECONDS = env.number("JOB_RETRY_BASE_SECONDS", 5)
JOB_RETRY_CAP_SECONDS = env.number("JOB_RETRY_CAP_SECONDS", 300)
#: Retry budget: retries of a site, and of a provider, as a percentage of their first attempts within a minute; …
RETRY_BUDGET_PERCENT = env.number("RETRY_BUDGET_PERCENT", 20)
#: … this many per minute and worker process are always allowed.
RETRY_BUDGET_FLOOR = env.number("RETRY_BUDGET_FLOOR", 60)
#: Graceful shutdown: how long a worker waits for its calls before it releases its jobs.
JOB_DRAIN_SECONDS = env.number("JOB_DRAIN_SECONDS", 18)

#: Days after which prompts and answers of finished jobs are erased, unless the site has its own value; 0: never.
JOB_RETENTION_DAYS = env.number("JOB_RETENTION_DAYS", 30)

# Live requests

#: When Redis is unavailable: `open` serves requests without rate limits and nonce checks, `closed` responds with 503.
LIVE_FAIL_MODE = env.choice("LIVE_FAIL_MODE", "open", ("open", "closed"))
#: How long the event log of a stream can be read after the stream ended.
STREAM_LOG_TTL_SECONDS = env.number("STREAM_LOG_TTL_SECONDS", 3600, at_least=60)
#: Size limit of the event log of one stream, in memory while it runs and in Redis. Older events cannot be resumed.
STREAM_LOG_MAX_BYTES = env.number("STREAM_LOG_MAX_BYTES", 4_194_304, at_least=65_536)
#: How long a stream without readers continues, so that a reader can reconnect.
STREAM_GRACE_SECONDS = env.number("STREAM_GRACE_SECONDS", 15)
#: Interval of keep-alive comments on an idle stream, so that no proxy closes the connection.
STREAM_KEEPALIVE_SECONDS = env.number("STREAM_KEEPALIVE_SECONDS", 12, at_least=1)
#: How long a WebSocket may take to authenticate, if its handshake carried no credentials.
WEBSOCKET_AUTH_SECONDS = env.number("WEBSOCKET_AUTH_SECONDS", 5, at_least=1)
#: A WebSocket without running streams and without messages is closed after this time.
WEBSOCKET_IDLE_SECONDS = env.number("WEBSOCKET_IDLE_SECONDS", 300, at_least=1)
#: A WebSocket whose client does not respond to a ping within this time is closed.
WEBSOCKET_PONG_SECONDS = env.number("WEBSOCKET_PONG_SECONDS", 30, at_least=1)
#: Streams and jobs that one WebSocket may follow at the same time.
WEBSOCKET_MAX_STREAMS = env.number("WEBSOCKET_MAX_STREAMS", 32, at_least=1)
#: Backpressure: bytes sent over a WebSocket before its client must acknowledge them.
WEBSOCKET_MAX_UNREAD_BYTES = env.number("WEBSOCKET_MAX_UNREAD_BYTES", 262_144, at_least=16_384)
#: Timeout of one live request, over all its calls.
LIVE_TIMEOUT_SECONDS = env.number("LIVE_TIMEOUT_SECONDS", 600, at_least=1)
#: Lease of a live request's concurrency slot: it is free again this long after its process was killed.
LIVE_LEASE_SECONDS = env.number("LIVE_LEASE_SECONDS", 60, at_least=3)
#: Graceful shutdown: how long a web process lets its streams continue before it ends them.
LIVE_DRAIN_SECONDS = env.number("LIVE_DRAIN_SECONDS", 15)
#: Largest body of a live request, including images. It is held in memory.
MAX_LIVE_BODY_BYTES = env.number("MAX_LIVE_BODY_BYTES", 4_194_304, at_least=1024)
MAX_MESSAGES = env.number("MAX_MESSAGES", 2_000, at_least=1)
#: TTL of the response cache: non-streaming answers, per site and body; 0: off.
CACHE_TTL_SECONDS = env.number("CACHE_TTL_SECONDS", 60)
#: Largest answer that is cached.
CACHE_MAX_BODY_BYTES = env.number("CACHE_MAX_BODY_BYTES", 262_144)
#: TTL of an idempotency key.
IDEMPOTENCY_TTL_SECONDS = env.number("IDEMPOTENCY_TTL_SECONDS", 86_400, at_least=1)
#: Limits of a site without a matching row in the admin; 0: no limit.
DEFAULT_REQUESTS_PER_MINUTE = env.number("DEFAULT_REQUESTS_PER_MINUTE", 0)
DEFAULT_TOKENS_PER_MINUTE = env.number("DEFAULT_TOKENS_PER_MINUTE", 0)
DEFAULT_CONCURRENCY = env.number("DEFAULT_CONCURRENCY", 0)

# Webhooks

#: Non-public networks that webhooks may reach (an exception from SSRF protection), e.g. 127.0.0.0/8 on a laptop.
WEBHOOK_ALLOWED_NETWORKS = env.words("WEBHOOK_ALLOWED_NETWORKS")
#: Ports that webhooks may use. The value `0` means an empty list, which allows all ports (for laptops).
WEBHOOK_ALLOWED_PORTS = [int(port) for port in env.words("WEBHOOK_ALLOWED_PORTS", "80,443") if port != "0"]
#: Total timeout of a delivery attempt: connect, headers and body.
WEBHOOK_TIMEOUT_SECONDS = env.number("WEBHOOK_TIMEOUT_SECONDS", 15, at_least=1)
#: Concurrent deliveries of one worker process.
WEBHOOK_SLOTS = env.number("WEBHOOK_SLOTS", 32, at_least=1)

# The API

MAX_BODY_BYTES = env.number("MAX_BODY_BYTES", 262_144, at_least=1024)
#: Largest body of a batch with inline requests. It is held in memory.
MAX_BATCH_BODY_BYTES = env.number("MAX_BATCH_BODY_BYTES", 33_554_432, at_least=1024)
#: Largest file, as OpenAI's batches allow. It is buffered on disk and never held completely in memory.
MAX_FILE_BYTES = env.number("MAX_FILE_BYTES", 209_715_200, at_least=1024)
#: The file and the multipart form around it.
MAX_UPLOAD_BYTES = MAX_FILE_BYTES + 65_536
#: Timeout for the next part of a request body.
BODY_READ_TIMEOUT_SECONDS = env.number("BODY_READ_TIMEOUT_SECONDS", 30, at_least=1)
#: Bytes that a web process may buffer of long bodies whose signature cannot be verified before they are complete.
MAX_UNVERIFIED_BYTES = 2 * max(MAX_UPLOAD_BYTES, MAX_BATCH_BODY_BYTES)
#: Django's own limit, the same for all URLs. `api.request_body.size_limit` watches each.
DATA_UPLOAD_MAX_MEMORY_SIZE = max(MAX_BODY_BYTES, MAX_BATCH_BODY_BYTES)
#: Bearer token required to read /metrics. Empty: only from loopback.
METRICS_TOKEN = env.secret("METRICS_TOKEN")
#: How long a ticket can be used to open a stream; an opened stream may run to its end.
TICKET_TTL_SECONDS = env.number("TICKET_TTL_SECONDS", 600, at_least=1)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["api.authentication.SiteAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["api.request_body.json_parser.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "api.openapi_schema.ApiSchema",
    "EXCEPTION_HANDLER": "api.error_responses.handle_exception",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Nightdesk",
    "VERSION": VERSION,
    "DESCRIPTION": "The AI gateway behind WordPress sites: live streams, durable jobs, usage and signed webhooks.",
    # 3.1 is JSON Schema itself, as msgspec writes it for the live addresses.
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "TAGS": [{"name": name} for name in ("Jobs", "Batches", "Files", "Webhooks", "Tokens", "Limits", "Operations")],
    "ENUM_NAME_OVERRIDES": {
        "JobState": "jobs.models.JobState",
        "JobKind": "jobs.models.JobKind",
        "LimitKind": "tenants.models.LimitKind",
        "FilePurpose": "jobs.models.FilePurpose",
        "BatchState": "jobs.models.BatchState",
        "DeliveryState": "webhooks.models.DeliveryState",
    },
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "api.live.openapi.add_live_operations"],
}

# Crash tests: with both set, workers and web processes exit at a named crash point (docs/how-to/prove-it-yourself.md)

_crash_at = env.text("NIGHTDESK_CRASH_AT")
CRASH_AT = read_crash_at(_crash_at) if env.choice("NIGHTDESK_CHAOS", "0", ("0", "1")) == "1" else None

# The admin

UNFOLD = {
    "SITE_TITLE": "Nightdesk",
    "SITE_HEADER": "Nightdesk",
    "SITE_SUBHEADER": "The AI desk behind your sites",
    "SITE_URL": None,
    "SITE_ICON": "nightdesk.admin.theme.icon",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "nightdesk.admin.theme.icon"}],
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "nightdesk.admin.theme.environment",
    "DASHBOARD_CALLBACK": "nightdesk.admin.home.add_home_context",
    "STYLES": ["nightdesk.admin.theme.stylesheet"],
    "SIDEBAR": {"show_search": True, "navigation": "nightdesk.admin.theme.navigation"},
    "COLORS": {
        "primary": {
            "50": "#eef2ff",
            "100": "#e0e7ff",
            "200": "#c7d2fe",
            "300": "#a5b4fc",
            "400": "#818cf8",
            "500": "#6366f1",
            "600": "#4f46e5",
            "700": "#4338ca",
            "800": "#3730a3",
            "900": "#312e81",
            "950": "#1e1b4b",
        }
    },
}

# Logs

LOG_FORMAT = env.choice("LOG_FORMAT", "auto", ("auto", "console", "json"))
LOGGING = logging.configure(
    console=LOG_FORMAT == "console" or (LOG_FORMAT == "auto" and DEBUG),
    level=env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
)
