"""URL configuration."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from nightdesk.static_files import serve

urlpatterns = [
    path("admin/", admin.site.urls),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("static/<path:name>", serve),
    path("", RedirectView.as_view(url="/docs")),
    path("", include("api.urls")),
]
handler400 = "api.error_responses.bad_request"
handler403 = "api.error_responses.forbidden"
handler404 = "api.error_responses.not_found"
handler500 = "api.error_responses.server_error"
