"""Errors of the API as RFC 9457 problem documents."""

from __future__ import annotations

import json
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from runs.db.outages import Outage

CONTENT_TYPE = "application/problem+json"

# What to say where the error came from below the API and carries no sentence of its own.
SENTENCES = {
    400: "The request could not be read.",
    401: "Sign in, or send a token: Authorization: Bearer pft_….",
    403: "The request was refused. A page's session needs its CSRF token in the X-CSRFToken header.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    413: "The request body is larger than the server accepts.",
    415: "Send JSON with Content-Type: application/json.",
    429: "Too many requests; wait a moment.",
    500: "The server failed; its log says why.",
    503: "The server is busy; try again in a moment.",
}


class Problem(Exception):
    """An answer that is an error. ``field`` names the parameter that is wrong, where one is."""

    def __init__(self, status: int, detail: str = "", field: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.headers = status, detail, field, headers or {}

    def response(self) -> HttpResponse:
        return problem(self.status, self.detail, self.field, self.headers)


def problem(status: int, detail: str = "", field: str = "", headers: dict[str, str] | None = None) -> HttpResponse:
    """RFC 9457 §3.1; ``type`` is ``about:blank``, so ``title`` is the status' own phrase."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    document["detail"] = detail or SENTENCES.get(status, "")
    if field:
        document["field"] = field
    return HttpResponse(json.dumps(document), status=status, content_type=CONTENT_TYPE, headers=headers or {})


def problem_of(outage: Outage) -> HttpResponse:
    return problem(outage.status, outage.sentence, headers={"Retry-After": str(outage.retry_after)})


def as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The same error as a problem document, if it is one of the API's and is not one yet."""
    if response.status_code < 400 or not request.path_info.startswith("/api/"):
        return response
    if response.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
        return response
    headers = {name: response.headers[name] for name in ("Allow", "Retry-After") if name in response.headers}
    return problem(response.status_code, headers=headers)
