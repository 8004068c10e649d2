"""What the web server serves."""

import django

from api.asgi import get_application
from nightdesk import env
from nightdesk.checks import refuse_bad_settings

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)
refuse_bad_settings()

application = get_application()
