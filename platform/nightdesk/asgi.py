"""What the web server serves."""

import django
from django.conf import settings

from api.asgi import get_application
from api.live.asgi import Gate
from core import crash
from nightdesk import env
from nightdesk.checks import refuse_bad_settings

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)
refuse_bad_settings()
crash.arm(settings.CRASH_AT)

application = Gate(get_application())
