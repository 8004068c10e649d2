"""What the web server serves."""

import django

from api.asgi import get_application
from nightdesk import env

env.use_settings("nightdesk.settings")
django.setup(set_prefix=False)

application = get_application()
