"""The API is as its description says: drawn requests to every operation, right ones and wrong ones, and each answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import urllib3
from asgiref.sync import async_to_sync
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from perfect_client.wire import messages
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from flows import timetable
from flows.models import Flow
from perfect_site.api.routes import api
from perfect_site.server.handler import Handler
from runs.services import limits
from runs.services import requests as services

from .conftest import NOW, FakeWorker


def operations() -> dict[str, Any]:
    """Each operation by its name; without the token, which the session adds and the security matrix looks after."""
    description = json.loads(json.dumps(api.get_openapi_schema()))
    for methods in description["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    found = [operation.ok() for operation in schemathesis.openapi.from_dict(description).get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


OPERATIONS = operations()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 10

Known = dict[str, Any]


@pytest.fixture
def known(flow: Flow, worker: FakeWorker) -> Known:
    """One of everything, by the names that addresses have for it."""
    order = worker.take() if services.trigger(flow=flow, now=NOW, trigger="page", who="ana") else None
    assert order is not None
    at = NOW.timestamp()
    worker.say(
        order, messages.RunStarted(at, pid=1), messages.TaskStarted(at, 1, "load"), messages.Logged(at, "a line", 20, 1)
    )
    row = timetable.create(flow=flow, values={"kind": "interval", "expression": "60"}, now=NOW, who="ana")
    limits.create_limit(name="gpu", slots=2, per_second=0.5, now=NOW)
    limits.set_variable(name="gpu", value={"a": [1, None]}, now=NOW, who="ana")
    return {
        "slug": flow.slug,
        "run_id": order.run,
        "schedule_id": row.pk,
        "name": "gpu",
        "worker_id": str(worker.id),
    }


class InProcess(requests.adapters.HTTPAdapter):
    """Hands a request to the server's own handler, in the test's thread and transaction."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        answer = async_to_sync(self._answer)(request)
        raw = urllib3.HTTPResponse(
            io.BytesIO(answer.content), headers=answer.headers, status=answer.status_code, preload_content=False
        )
        return self.build_response(request, raw)

    async def _answer(self, request: Any) -> httpx.Response:
        headers = {**request.headers, "Authorization": f"Bearer {self._secret}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=Handler())) as client:
            return await client.request(request.method, request.url, headers=headers, content=request.body)


@pytest.fixture
def session(make_token: Callable[..., str]) -> Iterator[requests.Session]:
    """A script with an admin token."""
    with requests.Session() as session:
        session.mount("http://", InProcess(make_token("admin")))
        yield session


RIGHT = [(name, GenerationMode.POSITIVE) for name in sorted(OPERATIONS)]
WRONG = [(name, GenerationMode.NEGATIVE) for name, found in sorted(OPERATIONS.items()) if found.body or found.query]


@pytest.mark.parametrize(("name", "mode"), RIGHT + WRONG, ids=str)
def test_every_answer_is_one_that_is_described(name: str, mode: GenerationMode, known: Known, session: Any) -> None:
    operation = OPERATIONS[name]

    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any, there: bool) -> None:
        if there:
            case.path_parameters = {key: known.get(key, value) for key, value in (case.path_parameters or {}).items()}
        with transaction.atomic():
            response = case.call(base_url="http://127.0.0.1", session=session)
            case.validate_response(response, checks=CHECKS)
            transaction.set_rollback(True)

    ask()
