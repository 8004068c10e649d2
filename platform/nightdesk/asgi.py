"""What the web server serves."""

import django
from django.conf import settings

from core import crash
from nightdesk import env
from nightdesk.checks import refuse_bad_settings
from nightdesk.interpreter import settle_in

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)

# Only now: the live path knows models, and these want their apps.
from api.asgi import get_application  # noqa: E402
from api.live.asgi import Gate  # noqa: E402

refuse_bad_settings()
crash.arm(settings.CRASH_AT)

application = Gate(get_application())
settle_in()
