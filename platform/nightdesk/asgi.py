"""What the web server serves."""

from django.core.asgi import get_asgi_application

from nightdesk import env

env.use_settings("nightdesk.settings")

application = get_asgi_application()
