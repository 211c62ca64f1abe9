"""How each kind of error of the API becomes a problem document."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from flows.parameters import Conflict, Missing, Refused
from perfect_site.api.problems import Problem, problem, problem_of
from runs.db import outages

logger = logging.getLogger(__name__)

BODY_NAMES = ("wish", "wishes")  # the views' names for the body, which callers never see


def answer_errors(api: NinjaAPI) -> None:
    """Have ``api`` answer every error in this form."""
    for kind, handler in HANDLERS.items():
        api.add_exception_handler(kind, handler)


def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return error.response()


def _refused(request: HttpRequest, error: Refused) -> HttpResponse:
    status = {Missing: 404, Conflict: 409}.get(type(error), 422)
    return problem(status, error.sentence, field=error.field)


def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    path = [str(part) for part in first["loc"]][1:]
    names = [part for part in path if part not in BODY_NAMES]
    what = ".".join(names) or "body"
    said = first["msg"].removeprefix("Value error, ")  # a sentence of ours
    return problem(422, f"{what}: {said[:1].lower()}{said[1:]}", field=what)


def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    return problem(error.status_code, "The body is not JSON." if error.status_code == 400 else str(error))


def _missing(request: HttpRequest, error: Http404) -> HttpResponse:
    return problem(404)


def _database_failed(request: HttpRequest, error: Error) -> HttpResponse:
    outage = outages.of(error)
    if outage is None:
        return _failed(request, error)
    outages.log_failure(logger, f"{request.method} {request.path}", error)
    return problem_of(outage)


def _failed(request: HttpRequest, error: Exception) -> HttpResponse:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem(500)


HANDLERS: dict[type[Exception], Callable[[HttpRequest, Any], HttpResponse]] = {
    Problem: _problem,
    Refused: _refused,
    ValidationError: _invalid,
    HttpError: _http_error,
    Http404: _missing,
    Error: _database_failed,
    Exception: _failed,
}
