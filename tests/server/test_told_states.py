"""Names of runs and states, results of tasks, failures that may be: stored, and shown on page and API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from perfect_client.wire import messages as p

from runs.ingest import ledger
from runs.models import Run

from .conftest import seconds

pytestmark = pytest.mark.django_db


@pytest.fixture
def told(worker: Any, run: Run) -> Run:
    order = worker.take()
    worker.say(
        order,
        p.RunStarted(seconds()),
        p.RunNamed(seconds(), "sales <of> June"),
        p.TaskStarted(seconds(0), 1, "extract", "extract June"),
        p.TaskEnded(seconds(1), 1, "COMPLETED", result="{'rows': 3}", state="Skipped by rule", message="nothing new"),
        p.TaskStarted(seconds(1), 2, "load", "load", crucial=False),
        p.TaskEnded(seconds(2), 2, "FAILED", "ValueError: no"),
    )
    ledger.ledgers.clear()
    worker.say(order, p.RunEnded(seconds(3), "COMPLETED", reason="all quiet", state="All quiet"), first=7)
    return Run.objects.get(pk=run.pk)


def test_they_are_stored(told: Run) -> None:
    assert (told.name, told.title, told.state, told.state_name) == (
        "sales <of> June",
        "sales <of> June",
        "COMPLETED",
        "All quiet",
    )
    first, second = told.task_runs.order_by("number")
    assert (first.name, first.state_name, first.message, first.result, first.crucial) == (
        "extract June",
        "Skipped by rule",
        "nothing new",
        "{'rows': 3}",
        True,
    )
    assert (second.state, second.crucial) == ("FAILED", False)


def test_pages_show_them(client: Client, viewer: Any, told: Run) -> None:
    client.force_login(viewer)

    page = client.get(f"/runs/{told.pk}/").content.decode()
    for words in (
        "sales &lt;of&gt; June",
        "extract June",
        "Skipped by rule",
        "nothing new",
        "All quiet",
        "{&#x27;rows&#x27;: 3}",
        "but optional",
    ):
        assert words in page, words
    listed = client.get("/runs/").content.decode()
    assert "sales &lt;of&gt; June" in listed and "Daily Sales ETL" in listed
    assert str(told.pk) in client.get("/runs/?q=of> june").content.decode()
    assert str(told.pk) not in client.get("/runs/?q=of> july").content.decode()


def test_the_api_tells_them(client: Client, make_token: Callable[..., str], told: Run) -> None:
    headers = {"Authorization": f"Bearer {make_token('read')}"}

    run = client.get(f"/api/runs/{told.pk}", headers=headers).json()
    first, second = client.get(f"/api/runs/{told.pk}/tasks", headers=headers).json()["items"]

    assert (run["name"], run["flow"], run["state"], run["state_name"]) == (
        "sales <of> June",
        "daily-sales-etl",
        "COMPLETED",
        "All quiet",
    )
    assert (first["state_name"], first["message"], first["result"]) == ("Skipped by rule", "nothing new", "{'rows': 3}")
    assert (second["state_name"], second["crucial"], first["crucial"]) == ("Failed", False, True)


def test_what_is_too_long_is_cut_and_not_refused(worker: Any, run: Run) -> None:
    order, long = worker.take(), "ü" * 5_000

    worker.say(
        order,
        p.RunStarted(seconds()),
        p.RunNamed(seconds(), long),
        p.TaskStarted(seconds(0), 1, "extract"),
        p.TaskEnded(seconds(1), 1, "COMPLETED", result=long, state=long, message=long),
        p.RunEnded(seconds(3), "COMPLETED", state=long),
    )

    row, run = run.task_runs.get(number=1), Run.objects.get(pk=run.pk)
    assert len(run.name.encode()) <= 200 and len(run.state_name.encode()) <= 200
    assert len(row.result.encode()) <= 1024 and len(row.message.encode()) <= 1024 and len(row.state_name) <= 200
