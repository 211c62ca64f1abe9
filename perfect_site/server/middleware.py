"""Perfect's own middleware, and what Django answers where no view could."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views import defaults

from perfect_site.api.problems import as_problem, problem_of
from perfect_site.dashboard.decorators import say_outage
from runs.db import outages

logger = logging.getLogger("perfect.http")
GetResponse = Callable[[HttpRequest], HttpResponseBase]


def problems(get_response: GetResponse) -> GetResponse:
    """Errors of the API are problem documents, also where Django refused the request before any view saw it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return as_problem(request, get_response(request))

    return middleware


def failed(request: HttpRequest) -> HttpResponse:
    """The handler of errors that nothing else caught, in a view or around it: of an outage of the database a sentence
    with 503 or 507, else the page that says that the log says why."""
    error = sys.exc_info()[1]
    outage = outages.of(error) if error is not None else None
    if error is None or outage is None:
        return defaults.server_error(request)
    outages.log_failure(logger, f"{request.method} {request.path}", error)
    response = problem_of(outage) if request.path_info.startswith("/api/") else say_outage(request, outage)
    response._has_been_logged = True  # type: ignore[attr-defined]  # or Django logs the traceback as well
    return response
