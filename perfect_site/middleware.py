"""Perfect's own middleware."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from runs.problems import as_problem

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def problems(get_response: GetResponse) -> GetResponse:
    """Errors of the API are problem documents, also where Django refused the request before any view saw it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return as_problem(request, get_response(request))

    return middleware
