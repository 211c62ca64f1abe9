"""No GET of a viewer keeps the server busy: whatever is asked, and whatever text a flow has left behind."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from django.test import Client

from runs.models import Artifact, Event, LogLine, Run, TaskRun

from .test_security_matrix import client_of

MEGABYTE = 1 << 20
MOST = 10.0  # seconds of the processor: 2 at worst when this was written; what is quadratic takes hours
TEXTS = {"repeated": "y", "colours": "\x1b[", "brackets": "[", "stars": "*a_", "images": "!["}
ASKED = ("(y+)+z", "y" * 199 + "z", "%" * 200, "_%" * 100, "y " * 100, "\\" * 200)


def addresses(run: Run, uid: uuid.UUID) -> list[tuple[str, dict[str, str]]]:
    here = f"/runs/{run.pk}/"
    found = [(path, {}) for path in ("/", "/runs/", here, f"{here}_hero/", f"{here}_timeline/", f"{here}_log/")]
    found += [(f"{here}{part}", {}) for part in ("_artifacts/", "artifacts/", f"artifacts/{uid}/", "?tab=events")]
    found += [(f"/api{here[:-1]}{part}", {}) for part in ("", "/tasks", "/logs", "/artifacts")]
    found += [(f"/admin/runs/{model}/", {"run__id__exact": str(run.pk)}) for model in ("logline", "event", "taskrun")]
    found += [("/admin/runs/run/", {}), (f"/admin/runs/run/{run.pk}/change/", {})]
    return found


def searches(run: Run) -> list[tuple[str, str]]:
    return [
        ("/runs/", "q"),
        ("/runs/", "tag"),
        (f"/runs/{run.pk}/_log/", "find"),
        ("/api/runs", "q"),
        ("/api/runs", "tag"),
        (f"/api/runs/{run.pk}/logs", "q"),
        ("/admin/runs/run/", "q"),
        ("/admin/flows/flow/", "q"),
        ("/admin/runs/logline/", "message__regex"),
        ("/admin/runs/run/", "parameters__icontains"),
    ]


@pytest.fixture
def left(run: Run, now: Any) -> Any:
    """Fill every text of a run with one."""

    def fill(text: str) -> uuid.UUID:
        uid = uuid.uuid4()
        Run.objects.update(
            error=text, traceback=text, result=text, state_reason=text[:5_000], parameters={"path": text}
        )
        TaskRun.objects.create(
            run=run, attempt=1, key="k", name="k", position=9, state="FAILED", error=text, traceback=text
        )
        LogLine.objects.create(run=run, seq=1, attempt=1, time=now, level=20, message=text)
        Event.objects.create(run=run, time=now, who="ana", why=text)
        Artifact.objects.create(
            run=run,
            attempt=1,
            uid=uid,
            kind="markdown",
            created_at=now,
            updated_at=now,
            parts_seen=1,
            size=len(text),
            data=text,
            head=text[:20_000],
        )
        return uid

    return fill


def spent(client: Client, path: str, query: dict[str, str]) -> float:
    began = time.process_time()
    assert client.get(path, query).status_code < 500
    return time.process_time() - began


@pytest.mark.parametrize("kind", TEXTS)
def test_no_page_is_slow_with_a_megabyte_of(kind: str, run: Run, left: Any) -> None:
    uid = left((TEXTS[kind] * MEGABYTE)[:MEGABYTE])
    client = client_of("viewer")
    slow = {path: took for path, query in addresses(run, uid) if (took := spent(client, path, query)) > MOST}
    assert not slow


def test_no_search_is_slow_in_a_megabyte(run: Run, left: Any) -> None:
    left("y" * MEGABYTE)
    client = client_of("viewer")
    slow = {
        (path, name, text): took
        for path, name in searches(run)
        for text in ASKED
        if (took := spent(client, path, {name: text})) > MOST
    }
    assert not slow
