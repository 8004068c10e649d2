"""The ASGI entry point that web servers load: `nightdesk.asgi:application`."""

import django
from django.conf import settings

from core import crash
from nightdesk import env
from nightdesk.checks import require_valid_settings
from nightdesk.gc_tuning import tune_gc

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)

# Only now: these import models, which need the app registry.
from api.asgi import get_application  # noqa: E402
from api.live.asgi import asgi_application  # noqa: E402

require_valid_settings()
crash.arm(settings.CRASH_AT)

application = asgi_application(get_application())
tune_gc()
