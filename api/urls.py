"""URLs of the REST API, the docs and the probes. (`api.live.routing` has those of the live path.)"""

from django.urls import path, re_path

from api.views import batches, files, jobs, limits, operations, tokens, webhooks

urlpatterns = [
    path("v1/jobs", jobs.JobList.as_view()),
    path("v1/jobs/<str:job_id>", jobs.JobDetail.as_view()),
    path("v1/jobs/<str:job_id>/cancel", jobs.CancelJob.as_view()),
    path("v1/jobs/<str:job_id>/retry", jobs.RetryJob.as_view()),
    path("v1/batches", batches.BatchList.as_view()),
    path("v1/batches/<str:batch_id>", batches.BatchDetail.as_view()),
    path("v1/batches/<str:batch_id>/results", batches.BatchResults.as_view()),
    path("v1/batches/<str:batch_id>/cancel", batches.CancelBatch.as_view()),
    path("v1/batches/<str:batch_id>/pause", batches.PauseBatch.as_view()),
    path("v1/batches/<str:batch_id>/resume", batches.ResumeBatch.as_view()),
    path("v1/batches/<str:batch_id>/retry", batches.RetryBatch.as_view()),
    path("v1/files", files.FileList.as_view()),
    path("v1/files/<str:file_id>", files.FileDetail.as_view()),
    path("v1/files/<str:file_id>/content", files.FileContent.as_view()),
    path("v1/webhook-endpoints", webhooks.EndpointList.as_view()),
    path("v1/webhook-endpoints/<str:endpoint_id>", webhooks.EndpointDetail.as_view()),
    path("v1/deliveries", webhooks.DeliveryList.as_view()),
    path("v1/tokens", tokens.CreateToken.as_view()),
    path("v1/tickets", tokens.CreateTicket.as_view()),
    path("v1/limits", limits.LimitsDetail.as_view()),
    path("v1/openapi.json", operations.OpenAPIDocument.as_view()),
    path("docs", operations.docs),
    path("healthz", operations.Health.as_view()),
    path("readyz", operations.Readiness.as_view()),
    # Last: unknown paths get an API error, even with DEBUG.
    re_path(r"^(?:v1|api)(?:/.*)?$", operations.UnknownPath.as_view()),
]
