"""The pages say before anything waits: which flow no worker has, which runs old code, what rests, what is archived."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from perfect_client.wire import messages as p

from flows import services
from flows.models import Flow
from perfect_site.dashboard import attention, overview
from perfect_site.dashboard.topics import render
from runs.db import threads
from runs.ingest import reports
from runs.models import Offering, Worker

from .conftest import FakeWorker
from .pages import make_flow, make_run, make_worker

pytestmark = pytest.mark.django_db
BROKEN = "etl.py:12 does not import: SyntaxError: invalid syntax; its last good code is used"
SPEC = p.FlowSpec(
    "Sales",
    fingerprint="1",
    start="fresh",
    start_reason="starts fresh: importing polars left 2 native threads",
    notes=["The default of 'day' is the moment of the import. Use None."],
)


@pytest.fixture
def see(viewer: Any, client: Client) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def act(administrator: Any, client: Client, monkeypatch: Any) -> Client:
    """Wishes are done at once, in the test's transaction."""

    class Done:
        def __init__(self, value: Any) -> None:
            self.value = value

        def result(self, timeout: float) -> Any:
            return self.value

    monkeypatch.setattr(threads, "write_soon", lambda deed, *args, **values: Done(deed(*args, **values)))
    client.force_login(administrator)
    return client


@pytest.fixture
def worker() -> FakeWorker:
    worker = FakeWorker(SPEC)
    worker.join(now=timezone.now())
    return worker


def leave(worker: FakeWorker) -> None:
    reports.leave(worker=worker.id, boot=worker.boot, now=timezone.now(), why="it was stopped")


def words(client: Client, *urls: str) -> list[str]:
    return [client.get(url).content.decode() for url in urls]


def troubles() -> list[tuple[str, str, str]]:
    return [(one.word or one.state, one.title, one.text) for one in attention.troubles(timezone.now(), [])]


def drawn(topic: str) -> dict[str, str]:
    """What a page that watches gets, by the element whose place it takes."""
    messages = render(topic, None, whole=True, since=0).messages
    return {message["target"]: message["html"] for _, message in messages if message["t"] == "html"}


# ---------------------------------------------------------------------------------------------------- without a worker


def test_a_flow_with_a_worker_is_no_trouble(see, worker):
    assert troubles() == []
    assert all("No worker" not in page for page in words(see, "/", "/flows/", "/flows/sales/"))


def test_a_flow_that_no_connected_worker_has_says_so_before_anything_waits(see, worker):
    leave(worker)

    assert troubles() == [("No worker", "Sales", "no connected worker has it")]
    for page in words(see, "/", "/flows/", "/flows/sales/"):
        assert "No worker" in page and "w1" in page


def test_a_flow_that_no_worker_has_any_more_says_that_it_rests(see, worker):
    Flow.objects.get().schedules.create(kind="cron", expression="0 6 * * *", next_at=timezone.now())
    worker.specs = []
    worker.join(now=timezone.now())

    assert troubles() == [("No worker", "Sales", "no worker has it any more")]
    page, schedules, schedule = words(see, "/flows/sales/", "/schedules/", f"/schedules/{_schedule()}/")
    assert "its schedules rest until then" in page and "(rests)" in page
    assert "Rests" in schedules and "no worker has this flow since" in schedules
    assert "It rests: no worker has this flow since" in schedule and "None while it rests." in schedule


def _schedule() -> int:
    return int(Flow.objects.get().schedules.get().pk)


def test_many_flows_are_one_trouble_that_counts_them():
    worker = FakeWorker(*[replace(SPEC, name=f"Flow {number}") for number in range(9)])
    worker.join(now=timezone.now())
    leave(worker)

    assert troubles() == [("No worker", "9 flows", "no connected worker has them: Flow 0, Flow 1, Flow 2, …")]


def test_failed_flows_do_not_push_the_others_out_of_sight():
    now = timezone.now()
    flows = [make_flow(now, f"Bad {number}") for number in range(12)]
    for number, flow in enumerate(flows):
        make_run(flow, now - timedelta(minutes=number + 5), "FAILED", error="no")

    shown = attention.troubles(now, overview.library(flows))[: attention.SHOWN]

    assert [one.title for one in shown][:5] == ["Bad 0", "Bad 1", "Bad 2", "Bad 3", "12 flows"]


def test_the_overview_takes_as_many_queries_for_many_workers_and_flows_as_for_few():
    def queries() -> int:
        now = timezone.now()
        with CaptureQueriesContext(connection) as caught:
            attention.troubles(now, overview.library(overview.flows_of_the_library()))
        return len(caught)

    def add(first: int, last: int) -> None:
        now = timezone.now()
        for number in range(first, last):
            flow = make_flow(now, f"Flow {number}")
            make_worker(flow, now - timedelta(minutes=5), name=f"w{number}", problems=["a.py:1: no"])
            Offering.objects.update(problem=BROKEN)

    add(0, 2)
    few = queries()
    add(2, 12)

    assert queries() == few


# ------------------------------------------------------------------------------------------------------------ old code


def test_a_problem_stands_on_the_flow_the_workers_and_the_overview_and_goes_when_it_is_mended(see, worker):
    worker.specs = [replace(SPEC, problem=BROKEN)]
    worker.join(now=timezone.now())
    urls = ("/", "/flows/", "/flows/sales/", "/workers/")
    assert [BROKEN[:60] in page for page in words(see, *urls)] == [True] * 4
    assert troubles() == [("Old code", "Sales", BROKEN)]
    assert BROKEN in drawn("flow:sales")["#flow-notices"] and BROKEN in drawn("workers")["#worker-rows"]

    worker.specs = [SPEC]
    worker.join(now=timezone.now())

    assert [BROKEN[:60] in page for page in words(see, *urls)] == [False] * 4
    assert troubles() == []
    assert BROKEN not in drawn("flow:sales")["#flow-notices"] + drawn("workers")["#worker-rows"]


def test_a_file_of_several_flows_is_one_trouble_and_its_worker_none_of_its_own():
    worker = FakeWorker(replace(SPEC, problem=BROKEN), replace(SPEC, name="Returns", problem=BROKEN))
    worker.join(now=timezone.now())
    told = "etl.py:12 does not import: SyntaxError: invalid syntax"
    reports.announce(worker=worker.id, message=p.FlowsAnnounced(worker.specs, [told]), now=timezone.now())
    assert troubles() == [("Old code", "2 flows", f"{BROKEN}: Returns, Sales")]

    reports.announce(worker=worker.id, message=p.FlowsAnnounced(worker.specs, [told, "b.py: no"]), now=timezone.now())
    assert troubles()[1:] == [("FAILED", "worker w1", "b.py: no")]


def test_what_a_worker_that_is_gone_said_of_the_code_is_not_current(see, worker):
    worker.specs = [replace(SPEC, problem=BROKEN)]
    worker.join(now=timezone.now())
    leave(worker)

    assert [title for word, title, _ in troubles() if word == "Old code"] == []
    assert "Old code" not in see.get("/flows/sales/").content.decode()


def test_how_runs_start_and_remarks_stand_on_the_flow_and_the_workers_page(see, worker):
    for page in words(see, "/flows/sales/", "/workers/"):
        assert ">fresh<" in page and "importing polars left 2 native threads" in page
        assert "is the moment of the import. Use None." in page


def test_a_run_of_the_last_good_code_says_so_on_its_page(see, worker):
    from runs.services import requests as runs_services

    worker.specs = [replace(SPEC, problem=BROKEN)]
    worker.join(now=timezone.now())
    run = runs_services.trigger(flow=Flow.objects.get(), now=timezone.now(), trigger="page", who="ana")
    worker.take(now=timezone.now())

    page, events = words(see, f"/runs/{run.pk}/", f"/runs/{run.pk}/?tab=events")
    assert f"Not the newest code: {BROKEN}" in page and f"not the newest code: {BROKEN}" in events


# ---------------------------------------------------------------------------------------------- archived and forgotten


def test_an_admin_archives_and_unarchives_on_the_flows_page(act, worker):
    assert act.post("/flows/sales/archive/").status_code == 302
    kept, library = words(act, "/flows/?archived=1", "/flows/")
    assert "/flows/sales/" in kept and "/flows/sales/" not in library
    page = words(act, "/flows/sales/")[0]
    assert "Archived" in page and "Unarchive" in page and "run-form" not in page

    answer = act.post("/flows/sales/unarchive/", headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/flows/sales/")
    assert "/flows/sales/" in words(act, "/flows/")[0] and "run-form" in words(act, "/flows/sales/")[0]


def test_an_archived_flow_is_no_trouble(worker):
    leave(worker)
    services.archive(flow_id=Flow.objects.get().pk, now=timezone.now(), who="ana")

    assert troubles() == []


def test_flows_that_only_others_call_are_in_no_list(see):
    services.flow_called(name="Inner", now=timezone.now())

    assert all("Inner" not in page for page in words(see, "/flows/", "/flows/?archived=1", "/"))
    assert "no worker has announced it" in see.get("/flows/inner/").content.decode()
    assert troubles() == []


def test_an_admin_forgets_a_worker_on_the_workers_page(act, worker):
    leave(worker)
    url = f"/workers/{worker.id}/forget/"
    assert url in words(act, "/workers/")[0]

    assert act.post(url).status_code == 302

    assert "No worker is known" in words(act, "/workers/")[0]
    assert act.post(url).status_code == 404


def test_a_connected_worker_has_no_button_and_is_refused_with_a_sentence(act, worker):
    url = f"/workers/{worker.id}/forget/"
    assert url not in words(act, "/workers/")[0]

    answer = act.post(url, headers={"HX-Request": "true"})

    assert answer.status_code == 409 and "is connected; stop it, then forget it" in answer.content.decode()


def test_a_worker_that_was_away_for_months_is_still_shown_and_can_be_forgotten(see, worker):
    Worker.objects.update(connected=False, last_seen_at=timezone.now() - timedelta(days=400))

    assert f"/workers/{worker.id}/forget/" in words(see, "/workers/")[0]


@pytest.mark.parametrize("path", ["flows/flow", "runs/worker"])
def test_the_console_has_the_same_deeds(act, administrator, worker, path):
    administrator.is_staff = True
    administrator.save()
    leave(worker)
    key = Flow.objects.get().pk if path == "flows/flow" else worker.id
    action = "archive" if path == "flows/flow" else "forget"

    assert SPEC.start_reason in act.get(f"/admin/{path}/{key}/change/").content.decode()
    act.post(f"/admin/{path}/", {"action": action, "_selected_action": str(key)})

    assert Flow.objects.get().archived_by == ("admin" if action == "archive" else "")
    assert Worker.objects.known().exists() == (action == "archive")


def test_the_console_has_no_such_deeds_for_others(operator, client, worker):
    operator.is_staff = True
    operator.save()
    client.force_login(operator)
    leave(worker)

    client.post("/admin/flows/flow/", {"action": "archive", "_selected_action": str(Flow.objects.get().pk)})
    client.post("/admin/runs/worker/", {"action": "forget", "_selected_action": str(worker.id)})

    assert not Flow.objects.get().archived and Worker.objects.known().exists()
