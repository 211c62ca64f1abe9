"""Addresses about runs and workers. What starts with an underscore is a fragment of the page above it."""

from __future__ import annotations

from django.urls import path, register_converter

from perfect_site.dashboard import artifact_views, run_views


class Form:
    regex = "log|jsonl"

    def to_python(self, value: str) -> str:
        return value

    to_url = to_python


class ArtifactForm(Form):
    regex = "picture|csv|json|md"


register_converter(Form, "logform")
register_converter(ArtifactForm, "artifactform")

urlpatterns = [
    path("", run_views.home, name="overview"),
    path("_overview/<slug:name>/", run_views.part, name="overview-part"),
    path("runs/", run_views.history, name="runs"),
    path("runs/_list/", run_views.history_list, name="run-list"),
    path("runs/<uuid:pk>/", run_views.run, name="run"),
    path("runs/<uuid:pk>/_hero/", run_views.hero, name="run-hero"),
    path("runs/<uuid:pk>/_pause/", run_views.pause, name="run-pause-form"),
    path("runs/<uuid:pk>/_timeline/", run_views.timeline, name="run-timeline"),
    path("runs/<uuid:pk>/_log/", run_views.log, name="run-log"),
    path("runs/<uuid:pk>/_artifacts/", artifact_views.fragment, name="run-artifacts"),
    path("runs/<uuid:pk>/artifacts/", artifact_views.index, name="artifacts"),
    path("runs/<uuid:pk>/artifacts/<uuid:uid>/", artifact_views.one, name="artifact"),
    path("runs/<uuid:pk>/artifacts/<uuid:uid>/<artifactform:form>", artifact_views.download, name="artifact-download"),
    path("runs/<uuid:pk>/download.<logform:form>", run_views.download, name="run-download"),
    path("runs/<uuid:pk>/cancel/", run_views.cancel, name="run-cancel"),
    path("runs/<uuid:pk>/retry/", run_views.retry, name="run-retry"),
    path("runs/<uuid:pk>/resume/", run_views.resume, name="run-resume"),
    path("runs/<uuid:pk>/pause/", run_views.hold, name="run-hold"),
    path("runs/<uuid:pk>/go-on/", run_views.go_on, name="run-go-on"),
    path("runs/<uuid:pk>/give-up/", run_views.give_up, name="run-give-up"),
    path("workers/", run_views.workers, name="workers"),
    path("workers/<uuid:pk>/forget/", run_views.forget_worker, name="worker-forget"),
    path("workers/_rows/", run_views.worker_rows, name="worker-rows"),
]
