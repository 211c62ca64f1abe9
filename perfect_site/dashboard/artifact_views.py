"""Pages about a run's artifacts: all of them, each by itself, and what they hold as it is."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from perfect_client.wire import artifact_content

from perfect_site.dashboard import artifact_presenters
from perfect_site.dashboard.decorators import page
from runs.models import Artifact, Run

# A hostile SVG opened by itself: no script, no request, no access to this site.
LOCKED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@page("runs.view_run")
def fragment(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = _run(pk)
    return render(request, "runs/_artifacts.html", {"run": found, "wall": artifact_presenters.panel_of(found)})


@page("runs.view_run", "key")
def index(request: HttpRequest, pk: UUID) -> HttpResponse:
    found, key = _run(pk), request.GET.get("key", "")[: artifact_content.MAX_KEY]
    context = {"run": found, "key": key, "exhibits": artifact_presenters.index_of(found, key)}
    return render(request, "runs/artifacts.html", context)


@page("runs.view_run")
def one(request: HttpRequest, pk: UUID, uid: UUID) -> HttpResponse:
    """The only page that shows a picture from elsewhere: its policy names that one host."""
    shown = artifact_presenters.present_whole(_artifact(pk, uid))
    response = render(request, "runs/artifact.html", {"run": shown.row.run, "exhibit": shown, "alone": True})
    if shown.origin:
        response._csp_update = {"img-src": [shown.origin]}  # type: ignore[attr-defined]
    return response


@page("runs.view_run")
def download(request: HttpRequest, pk: UUID, uid: UUID, form: str) -> HttpResponse:
    row = _artifact(pk, uid)
    response = _FORMS[form](row)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = LOCKED
    return response


def _run(pk: UUID) -> Run:
    return get_object_or_404(Run.objects.select_related("flow"), pk=pk)


def _artifact(pk: UUID, uid: UUID) -> Artifact:
    row = artifact_presenters.artifacts_of(_run(pk)).select_related("run__flow").filter(uid=uid).order_by("-pk").first()
    if row is None:
        raise Http404
    return row


def _picture(row: Artifact) -> HttpResponse:
    """Its type is what its bytes are, not what anybody said."""
    if row.content is None:
        raise Http404
    response = HttpResponse(bytes(row.content), content_type=row.media_type)
    response.headers["Content-Disposition"] = (
        f'inline; filename="{_name(row, artifact_presenters.EXTENSIONS[row.media_type])}"'
    )
    return response


def _text(row: Artifact, kind: str, form: str, media_type: str, text: Callable[[str], str] = str) -> HttpResponse:
    if row.kind != kind:
        raise Http404
    response = HttpResponse(text(row.data).encode("utf-8", "backslashreplace"), content_type=media_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{_name(row, form)}"'
    return response


def _name(row: Artifact, form: str) -> str:
    """Of the run and the artifact, in letters that need no quoting: a key may hold more than the SDK allows."""
    key = "".join(letter for letter in row.key if letter.isascii() and (letter.isalnum() or letter == "-"))
    return f"{row.run.short_id}-{key or str(row.uid)[:8]}.{form}"


_FORMS: dict[str, Callable[[Artifact], HttpResponse]] = {
    "picture": _picture,
    "csv": lambda row: _text(row, artifact_content.TABLE, "csv", "text/csv; charset=utf-8", artifact_presenters.as_csv),
    "json": lambda row: _text(row, artifact_content.TABLE, "json", "application/json"),
    "md": lambda row: _text(row, artifact_content.MARKDOWN, "md", "text/markdown; charset=utf-8"),
}
