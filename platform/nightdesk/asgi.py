"""What the web server serves."""

import django
from django.conf import settings

from core import crash
from nightdesk import env
from nightdesk.checks import require_valid_settings
from nightdesk.gc_tuning import tune_gc

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)

# Only now: the live path knows models, and these want their apps.
from api.asgi import get_application  # noqa: E402
from api.live.asgi import LiveDispatcher  # noqa: E402

require_valid_settings()
crash.arm(settings.CRASH_AT)

application = LiveDispatcher(get_application())
tune_gc()
