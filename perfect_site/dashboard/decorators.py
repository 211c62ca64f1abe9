"""What all pages share: who may, how a wish reaches the writer, how an answer is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from flows.parameters import Conflict, Missing, Refused, refuse_unknown
from perfect_site.dashboard.presenters import as_id
from runs.db import threads
from runs.db.outages import Outage

P = ParamSpec("P")
T = TypeVar("T")
View = Callable[..., HttpResponseBase]


def page(permission: str, *asks: str) -> Callable[[View], View]:
    """A view that shows something to whoever has ``permission``; ``asks`` are the names that its query may have."""

    def decorate(view: View) -> View:
        @wraps(view)
        def shown(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            refuse_unknown(request.GET, asks)
            return view(request, *args, **kwargs)

        return require_GET(never_cache(permission_required(permission, raise_exception=True)(_said(shown))))

    return decorate


def action(permission: str) -> Callable[[View], View]:
    """A view that does something for whoever has ``permission``; a refused wish is answered in a sentence."""
    return lambda view: require_POST(never_cache(permission_required(permission, raise_exception=True)(_said(view))))


def _said(view: View) -> View:
    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            back = request.path if request.method == "GET" else came_from(request)
            return say(request, refused.sentence, bad=True, status=status_of(refused), to=back)

    return answered


def status_of(refused: Refused) -> int:
    return 404 if isinstance(refused, Missing) else 409 if isinstance(refused, Conflict) else 422


def asked_id(request: HttpRequest, name: str) -> UUID | None:
    """The run that the query names; None if it names none. Raises ``Refused`` for what is no id."""
    text = request.GET.get(name, "")
    found = as_id(text)
    if text and found is None:
        raise Refused(name, f"{name} must be the id of a run.")
    return found


def wish(deed: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Have the one writer do it; returns after the commit. Raises what the deed raises."""
    return threads.write_and_wait(deed, *args, **kwargs)


def who(request: HttpRequest) -> str:
    return request.user.get_username()


def came_from(request: HttpRequest) -> str:
    """The page that the form was on, as a path of this site; the overview if it did not say."""
    path = request.POST.get("from", "")
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def say(
    request: HttpRequest,
    sentence: str,
    *,
    to: str,
    link: str = "",
    link_text: str = "",
    bad: bool = False,
    status: int = 200,
) -> HttpResponse:
    """Answer an action: a note on the page that is open, or, without JavaScript, on the page ``to`` that follows."""
    if not getattr(request, "htmx", False):
        if bad:
            return render(request, "refused.html", {"sentence": sentence, "back": to}, status=status)
        messages.success(request, sentence)
        return HttpResponseRedirect(link or to)
    context = {"sentence": sentence, "link": link, "link_text": link_text, "bad": bad}
    return _toast(render(request, "_toast.html", context, status=status))


def say_outage(request: HttpRequest, outage: Outage) -> HttpResponse:
    """What cannot be done now, and why; without asking the database anything."""
    headers = {"Retry-After": str(outage.retry_after), "Cache-Control": "no-store"}
    context = {"sentence": outage.sentence, "status": outage.status, "bad": True}
    if getattr(request, "htmx", False):
        page = render_to_string("_toast.html", context)
        return _toast(HttpResponse(page, status=outage.status, headers=headers))
    return HttpResponse(render_to_string("503.html", context), status=outage.status, headers=headers)


def _toast(response: HttpResponse) -> HttpResponse:
    response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#toasts", "afterbegin"
    return response
