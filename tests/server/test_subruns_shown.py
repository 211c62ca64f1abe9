"""What pages, console and API show of flows that were called inside a run."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count
from django.test import Client
from perfect_client.wire import messages as p

from flows.models import Flow
from perfect_site.dashboard import overview, topics
from runs.models import LogLine, Run, uuid7
from runs.services import requests

from .conftest import NOW, SPEC, FakeWorker, seconds
from .test_subruns import BEGIN, CHILD, END, calls, task

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker(db: None) -> FakeWorker:
    worker = FakeWorker(SPEC, CHILD)
    worker.join()
    return worker


@pytest.fixture
def order(worker: FakeWorker, run: Run) -> p.OfferRun:
    return worker.take()


@pytest.fixture
def sub(worker: FakeWorker, order: p.OfferRun) -> uuid.UUID:
    """A sub-run that goes on, with a task and a line."""
    pk = uuid7()
    inside = [p.Logged(seconds(0), "told by the child", 20, 1), *task(2, "fetch", 1)]
    given = {"day": "2026-01-31", "key": "hush-hush"}
    worker.say(
        order, BEGIN, p.Logged(seconds(0), "told by the caller"), *calls(1, pk, *inside, ends="", parameters=given)
    )
    return pk


@pytest.fixture
def see(client: Client, viewer: object) -> Client:
    client.force_login(viewer)  # type: ignore[arg-type]
    return client


@pytest.fixture
def ask(client: Client, make_token: Callable[..., str]) -> Callable[[str], Any]:
    secret = make_token("admin")
    return lambda path: client.get(f"/api{path}", headers={"Authorization": f"Bearer {secret}"}).json()


def text(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_callers_row_leads_to_the_run_and_shows_its_share(see, run, sub):
    page = text(see, f"/runs/{run.pk}/")

    row = re.search(r'<tr data-task="\d+">(?:(?!</tr>).)*Child.*?</tr>', page, re.DOTALL)
    assert row and f'href="/runs/{sub}/"' in row[0] and "50 %" in row[0]


def test_the_page_of_a_sub_run_says_who_called_it_and_offers_nothing_that_is_refused(see, run, sub, operator):
    see.force_login(operator)

    page = text(see, f"/runs/{sub}/")

    assert f'href="/runs/{run.pk}/"' in page and "a sub-flow of it" in page
    assert ">w1<" in page.replace(" ", "")
    assert "Cancel</button>" not in page
    assert "told by the child" in page and "told by the caller" not in page
    assert "fetch" in page and "store" in page
    assert "hush-hush" not in page
    assert "Cancel</button>" in text(see, f"/runs/{run.pk}/")


def test_a_final_sub_run_offers_no_repeat(see, worker, order, run, sub, operator):
    worker.say(order, p.TaskEnded(seconds(3), 1, "FAILED", "ValueError: no"), END, first=8)
    see.force_login(operator)

    page = text(see, f"/runs/{sub}/")

    assert "ValueError: no" in page
    assert "Resume from failure" not in page and "Run again" not in page and "Rerun from" not in page


def test_a_wish_about_a_sub_run_is_refused_with_the_run_to_ask(client, run, sub, operator):
    client.force_login(operator)

    answer = client.post(f"/runs/{sub}/cancel/", headers={"HX-Request": "true"})

    assert answer.status_code == 409 and str(run.pk) in answer.content.decode()
    assert Run.objects.get(pk=run.pk).cancel_requested_at is None


def ids_on(client: Client, address: str) -> set[uuid.UUID]:
    return {uuid.UUID(found) for found in re.findall(r'<tr data-run="([0-9a-f-]{36})"', text(client, address))}


def test_the_history_shows_sub_runs_when_asked(see, run, sub):
    assert ids_on(see, "/runs/") == {run.pk}
    assert ids_on(see, "/runs/?state=RUNNING") == {run.pk}
    assert ids_on(see, "/runs/?called=1") == {run.pk, sub}
    assert ids_on(see, f"/runs/?called=1&q={sub.hex[-8:]}") == {sub}
    assert see.get(f"/runs/?q={sub}")["Location"] == f"/runs/{sub}/"
    assert "called by Daily Sales ETL" in text(see, "/runs/?called=1")


def test_a_flows_page_shows_its_sub_runs_the_overview_does_not(see, run, sub):
    assert ids_on(see, "/flows/child/") == {sub}
    assert overview.tiles(NOW).running == 1
    (card,) = [card for card in overview.library(list(Flow.objects.all())) if card.flow.name == "Child"]
    assert [row["id"] for row in card.last] == [sub]


def test_a_failed_sub_run_is_trouble_of_its_caller_alone(worker, order, run, sub):
    worker.say(
        order,
        p.TaskEnded(seconds(3), 1, "FAILED", "ValueError: no"),
        p.RunEnded(seconds(4), "FAILED", error="ValueError: no"),
        first=8,
    )

    cards = overview.library(list(Flow.objects.prefetch_related("tasks", "schedules")))

    assert [card.flow.name for card in cards if card.trouble] == ["Daily Sales ETL"]


def test_the_console_lists_sub_runs_when_asked(admin_client, run, sub):
    def listed(address: str) -> set[str]:
        return {pk for pk in (str(run.pk), str(sub)) if f"/run/{pk}/change/" in text(admin_client, address)}

    assert listed("/admin/runs/run/") == {str(run.pk)}
    assert listed("/admin/runs/run/?called=1") == {str(run.pk), str(sub)}
    assert listed("/admin/runs/run/?called=only") == {str(sub)}
    assert "hush-hush" not in text(admin_client, f"/admin/runs/run/{sub}/change/")


def test_the_api_tells_parent_and_sub_run(ask, run, sub):
    told = ask(f"/runs/{sub}")

    assert (told["parent"], told["trigger"], told["worker"], told["progress"]) == (str(run.pk), "flow", "w1", 50)
    assert told["parameters"] == {"day": "2026-01-31", "key": "***"}
    assert ask(f"/runs/{run.pk}")["parent"] is None
    assert [task["subrun"] for task in ask(f"/runs/{run.pk}/tasks")["items"]] == [None, None, str(sub)]
    assert [task["progress"] for task in ask(f"/runs/{run.pk}/tasks")["items"]] == [0, 0, 50]
    assert [line["message"] for line in ask(f"/runs/{sub}/logs")["items"]] == ["told by the child"]
    assert len(ask(f"/runs/{run.pk}/logs")["items"]) == 2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["run"]),
        ("?parent=any", ["sub", "run"]),
        ("?parent={run}", ["sub"]),
        ("?parent={sub}", []),
        ("?parent=any&state=running&flow=child", ["sub"]),
        ("?q={sub}", ["sub"]),
    ],
)
def test_lists_of_the_api_leave_sub_runs_out_unless_asked(ask, run, sub, query, found):
    names = {str(run.pk): "run", str(sub): "sub"}

    items = ask(f"/runs{query.format(run=run.pk, sub=sub)}")["items"]

    assert [names[item["id"]] for item in items] == found
    assert {item["worker"] for item in items} <= {"w1"}


def test_a_parent_that_is_no_id_is_refused(ask, run):
    assert "the id of a run, or 'any'" in ask("/runs?parent=nobody")["detail"]


def test_the_caller_is_drawn_anew_when_its_call_becomes_a_run(worker, run, order):
    worker.say(order, BEGIN, p.TaskStarted(seconds(0), 1, "child", "Child", kind="flow"))
    before = topics.render(f"run:{run.pk}", None, whole=True, since=0)
    worker.say(order, p.SubRunStarted(seconds(0), str(uuid7()), 1, "Child"), first=3)

    after = topics.render(f"run:{run.pk}", before.memory, whole=False, since=0)

    assert "#run-timeline" in dict(after.messages)


def test_the_log_of_a_sub_run_comes_line_by_line(worker, run, order, sub):
    first = topics.render(f"run:{sub}:log", None, whole=True, since=0)
    assert first.lines and [(row[0], row[4]) for row in first.lines] == [(2, "told by the child")]
    worker.say(order, p.Logged(seconds(1), "not its own"), p.Logged(seconds(1), "more", 20, 2), first=8)

    then = topics.render(f"run:{sub}:log", first.memory, whole=False, since=2)

    assert then.lines and [(row[0], row[3], row[4]) for row in then.lines] == [(4, "fetch", "more")]


def test_the_log_can_be_taken_home(see, sub):
    answer = see.get(f"/runs/{sub}/download.log")

    async def whole() -> bytes:
        return b"".join([chunk async for chunk in answer.streaming_content])

    from asgiref.sync import async_to_sync

    assert async_to_sync(whole)().endswith(b"told by the child\n")


def test_a_list_of_many_sub_runs_costs_as_many_queries_as_of_few(
    ask, run, order, worker, django_assert_max_num_queries
):
    facts: list[object] = [BEGIN]
    for index in range(50):
        facts += calls(index + 1, uuid7(), call=index)
    worker.say(order, *facts)

    with django_assert_max_num_queries(6):
        assert len(ask("/runs?parent=any")["items"]) == 50
    again = requests.trigger(flow=run.flow, now=NOW, trigger="page", who="ana")
    assert [item["id"] for item in ask("/runs?limit=1")["items"]] == [str(again.pk)]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's words for a plan")
@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (lambda: Run.objects.asked_for().order_by("-pk").values_list("pk")[:51], "COVERING INDEX run_by_parent"),
        (
            lambda: Run.objects.asked_for().filter(state="FAILED").order_by("-pk").values_list("pk")[:51],
            "COVERING INDEX run_by_",
        ),
        (
            lambda: (
                Run.objects.asked_for()
                .filter(state__in=["FAILED", "RUNNING"], pk__gte=uuid.UUID(int=1))
                .order_by()
                .values_list("state")
                .annotate(Count("pk"))
            ),
            "COVERING INDEX run_by_state",
        ),
        (lambda: Run.objects.filter(root_id=uuid.UUID(int=1)).order_by(), "INDEX run_by_root"),
        (
            lambda: LogLine.objects.filter(run_id=uuid.UUID(int=1), subrun=uuid.UUID(int=2)).order_by("seq"),
            "INDEX log_line_by_subrun",
        ),
    ],
    ids=["history", "history of a state", "tiles", "closing", "log"],
)
def test_lists_with_and_without_sub_runs_are_ranges_of_an_index(db, rows, index):
    plan = rows().explain()

    assert index in plan and "TEMP B-TREE FOR ORDER BY" not in plan
