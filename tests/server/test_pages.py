"""Every page, for everybody who may see it, with much and with nothing to show."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from flows.models import Flow, Schedule
from perfect_site.dashboard import attention, overview, topics
from runs.models import Attempt, Run

from .pages import make_flow, make_house, make_lines, make_run, make_tasks, make_worker

TEMPLATES = sorted(Path(settings.BASE_DIR, "perfect_site", "templates").rglob("*.html"))
PAGES = ["/", "/flows/", "/runs/", "/schedules/", "/workers/", "/runs/_list/", "/schedules/_rows/", "/workers/_rows/"]
PARTS = ["tiles", "running", "attention", "next", "workers"]


@pytest.fixture(autouse=True)
def _no_week_kept() -> None:
    overview._week.clear()


@pytest.fixture
def see(client: Client, viewer: Any) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def act(client: Client, operator: Any) -> Client:
    client.force_login(operator)
    return client


@pytest.mark.parametrize("path", [path for path in TEMPLATES if "admin" not in path.parts], ids=lambda path: path.name)
def test_templates_obey_the_strict_content_policy(path: Path) -> None:
    text = path.read_text()

    assert not re.search(r"""\sstyle\s*=|\son[a-z]+\s*=\s*["']|javascript:|hx-on|hx-vals=.js""", text)
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"""(?:src|href|action)=["']?https?://""", text)


@pytest.mark.parametrize("url", PAGES + [f"/_overview/{name}/" for name in PARTS])
def test_a_page_shows_with_nothing_to_show(see: Client, url: str) -> None:
    assert see.get(url).status_code == 200


def test_a_first_visitor_is_told_how_to_begin(see: Client) -> None:
    page = see.get("/").content.decode()

    assert "@flow" in page and "manage.py runworker hello.py" in page


@pytest.mark.parametrize("url", PAGES + [f"/_overview/{name}/" for name in PARTS])
def test_a_page_shows_with_runs_in_every_state(see: Client, url: str) -> None:
    make_house(timezone.now())

    page = see.get(url)

    assert page.status_code == 200
    assert "<script>alert" not in page.content.decode()


@pytest.mark.parametrize(
    ("page", "query", "sentence"),
    [
        ("/runs/", "stat=FAILED", "There is no query parameter 'stat' here. Did you mean 'state'?"),
        ("/runs/", "before=7", "before must be the id of a run."),
        ("/runs/{run}/", "tab=event", "There is no tab 'event'. Did you mean 'events'?"),
        ("/runs/{run}/", "level=loud", "There is no level 'loud'."),
        ("/runs/{run}/_log/", "before=last", "before must be the number of a line."),
        ("/flows/{flow}/", "from=yesterday", "from must be the id of a run."),
        ("/flows/{flow}/", "configuration=fast", " has no configuration 'fast'."),
    ],
)
def test_a_bad_query_of_a_page_is_refused(see: Client, page: str, query: str, sentence: str) -> None:
    make_house(timezone.now())
    run = Run.objects.select_related("flow").earliest("pk")

    answer = see.get(page.format(run=run.pk, flow=run.flow.slug) + "?" + query)

    assert answer.status_code == 422
    assert sentence in unescape(answer.content.decode())


def test_every_query_that_a_page_links_to_is_answered(see: Client) -> None:
    flow = make_house(timezone.now())
    pages = [*PAGES, f"/flows/{flow.slug}/", *[f"/runs/{run.pk}/" for run in Run.objects.all()]]
    shown = "".join(see.get(page).content.decode() for page in pages)
    links = {unescape(link) for link in re.findall(r"""(?:href|hx-get)="(/(?!static/)[^"]*[?][^"]*)\"""", shown)}

    assert links
    assert {link: see.get(link).status_code for link in links if see.get(link).status_code != 200} == {}


def test_every_address_of_every_run_answers(see: Client) -> None:
    flow = make_house(timezone.now())
    tails = ["", "?tab=events", "?tab=parameters", "_hero/", "_timeline/", "_log/", "_log/?level=info&find=red"]

    for run in Run.objects.all():
        for tail in tails:
            page = see.get(f"/runs/{run.pk}/{tail}")
            assert page.status_code == 200, (run.state, tail)
            assert "hush" not in page.content.decode()
    for tail in ["", "_history/", "_bars/", f"?from={run.pk}"]:
        assert see.get(f"/flows/{flow.slug}/{tail}").status_code == 200
    assert see.get(f"/schedules/{Schedule.objects.get().pk}/").status_code == 200


def test_what_is_not_there_is_a_page_in_the_look(see: Client) -> None:
    for url in ["/nope/", f"/runs/{Run().pk}/", "/flows/nope/", "/schedules/99/", "/_overview/nope/"]:
        page = see.get(url)
        assert page.status_code == 404
        assert "Nothing here" in page.content.decode()


def test_a_failed_run_says_why_in_its_first_line_and_shows_the_traceback(see: Client) -> None:
    flow = make_flow(timezone.now())
    run = make_run(flow, timezone.now(), "FAILED", error="ValueError: no\nmore", traceback="File x")

    page = see.get(f"/runs/{run.pk}/").content.decode()

    assert "<h2>ValueError: no</h2>" in page and "File x" in page


def test_a_waiting_run_says_why_it_waits(see: Client) -> None:
    make_run(make_flow(timezone.now()), timezone.now(), "PENDING")

    assert "no connected worker has this flow" in see.get("/").content.decode()


def test_a_flow_that_went_well_again_needs_no_attention(db: None) -> None:
    now = timezone.now()
    flow = make_flow(now)
    make_run(flow, now - timedelta(hours=2), "FAILED", error="no")
    make_worker(flow, now)
    assert attention.troubles(now, overview.library([flow]))

    make_run(flow, now - timedelta(hours=1))

    assert attention.troubles(now, overview.library([flow])) == []


def test_a_silent_worker_with_work_needs_attention(db: None) -> None:
    now = timezone.now()
    flow = make_flow(now)
    worker = make_worker(flow, now, connected=False, last_seen_at=now - timedelta(minutes=1))
    make_run(flow, now, "LOST", worker=worker)

    lost, absent = attention.troubles(now, [])

    assert (lost.title, absent.title) == ("worker w1", flow.name)


@pytest.mark.parametrize("runs", [3, 40])
def test_the_overview_costs_the_same_queries_however_long_the_history(
    see: Client, runs: int, django_assert_max_num_queries: Any
) -> None:
    now = timezone.now()
    flows = [make_flow(now, f"Flow {number}") for number in range(6)]
    for flow in flows:
        for number in range(runs):
            make_run(flow, now - timedelta(hours=number + 1))
        make_tasks(make_run(flow, now, "RUNNING"), "COMPLETED", "RUNNING", "PENDING")
    see.get("/")

    with django_assert_max_num_queries(24 + len(flows)):
        assert see.get("/").status_code == 200


def test_the_history_costs_few_queries(see: Client, django_assert_max_num_queries: Any) -> None:
    make_house(timezone.now())

    with django_assert_max_num_queries(10):
        see.get("/runs/")
    with django_assert_max_num_queries(12):
        see.get("/runs/?state=FAILED&state=CRASHED&q=ValueError")


def test_the_bars_show_the_last_twenty_runs_oldest_first(db: None) -> None:
    now = timezone.now()
    flow, other = make_flow(now), make_flow(now, "Other")
    made = [make_run(flow, now - timedelta(hours=30 - number)) for number in range(25)]
    make_run(other, now)

    shown, few = overview.library([flow, other])

    assert [row["id"] for row in shown.last] == [run.pk for run in made[5:]]
    assert len(few.last) == 1 and shown.usual == 60.0


# --------------------------------------------------------------------------------------------------------- acting


def test_a_viewer_sees_but_cannot_act(see: Client) -> None:
    flow = make_house(timezone.now())
    run = Run.objects.filter(state="RUNNING").get()
    before = Run.objects.count()

    urls = [
        f"/flows/{flow.slug}/run/",
        "/run-all/",
        f"/runs/{run.pk}/cancel/",
        f"/runs/{run.pk}/retry/",
        f"/runs/{run.pk}/give-up/",
        f"/runs/{run.pk}/resume/",
        f"/schedules/{Schedule.objects.get().pk}/pause/",
    ]
    for url in urls:
        answer = see.post(url)
        assert answer.status_code == 403, url
        assert "Not yours to do" in answer.content.decode()
    assert Run.objects.count() == before
    assert classes_of_body(see.get("/").content.decode()) == []


def classes_of_body(page: str) -> list[str]:
    found = re.search(r'<body\s+class="([^"]*)"', page)
    assert found
    return found.group(1).split()


def test_what_needs_a_permission_hides_by_the_class_of_the_body_alone(act: Client) -> None:
    make_house(timezone.now())

    page = act.get("/").content.decode()

    assert classes_of_body(page) == ["can-run", "can-cancel", "can-retry", "can-pause"]
    for name in PARTS:
        assert "csrf" not in act.get(f"/_overview/{name}/").content.decode()


def test_run_on_a_card_queues_a_run_and_says_so(act: Client) -> None:
    flow = make_flow(timezone.now())

    answer = act.post(f"/flows/{flow.slug}/run/", {"configuration": "release"}, headers={"HX-Request": "true"})

    run = Run.objects.get()
    assert (run.configuration, run.state, run.triggered_by, run.trigger) == ("release", "PENDING", "operator", "page")
    assert f"/runs/{run.pk}/" in answer.content.decode()


def test_run_works_without_javascript(act: Client) -> None:
    flow = make_flow(timezone.now())

    answer = act.post(f"/flows/{flow.slug}/run/", {"from": "/flows/"})

    assert answer["Location"] == Run.objects.get().get_absolute_url()


def test_the_form_turns_texts_into_values_and_leaves_out_what_is_empty(act: Client) -> None:
    flow = make_house(timezone.now())
    sent = {
        "form": "1",
        "configuration": "release",
        "p-source": "s3://x",
        "p-weeks": "12",
        "p-ratio": "0.5",
        "p-dry": "true",
        "p-mode": '"exact"',
        "p-day": "2026-03-01",
        "p-options": '{"a": [1]}',
        "p-api_token": "",
        "tags": "one, two",
    }

    answer = act.post(f"/flows/{flow.slug}/run/", sent)

    assert answer.status_code == 302, answer.content.decode()
    run = Run.objects.first()
    assert run is not None and run.tags == ["ml", "one", "two"]
    assert run.parameters == {
        "source": "s3://x",
        "weeks": 12,
        "ratio": 0.5,
        "dry": True,
        "mode": "exact",
        "day": "2026-03-01",
        "options": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("weeks", "many", "must be a whole number"),
        ("ratio", "x", "must be a number"),
        ("options", "{", "must be JSON"),
        ("source", "", "is missing"),
    ],
)
def test_a_refused_form_comes_back_with_the_sentence_at_its_field(
    act: Client, field: str, text: str, says: str
) -> None:
    flow = make_house(timezone.now())
    before = Run.objects.count()
    sent = {"form": "1", "configuration": "release", "p-source": "kept.csv", "p-mode": '"exact"', f"p-{field}": text}

    answer = act.post(f"/flows/{flow.slug}/run/", sent)

    page = answer.content.decode()
    assert answer.status_code == 422 and says in page
    assert 'value="&quot;exact&quot;" selected' in page and Run.objects.count() == before


def test_a_duration_says_that_it_is_in_seconds(act: Client) -> None:
    wait = {"type": "number", "format": "duration-seconds", "default": 5.0}
    properties = {
        "wait": wait,
        "pause": {"anyOf": [{**wait, "default": None}, {"type": "null"}]},
        "count": {"type": "number"},
    }
    flow = make_flow(timezone.now(), parameters={"type": "object", "properties": properties})

    page = act.get(f"/flows/{flow.slug}/").content.decode()

    assert re.findall(r'<label for="p-(\w+)">\w+ <span class="muted">\(seconds\)</span>', page) == ["wait", "pause"]
    assert "Empty: 5.0 seconds." in page


def test_the_values_of_an_earlier_run_fill_the_form_but_never_its_secrets(act: Client) -> None:
    flow = make_house(timezone.now())
    run = make_run(flow, timezone.now(), parameters={"weeks": 52, "api_token": "hush"}, configuration="release")

    page = act.get(f"/flows/{flow.slug}/?from={run.pk}").content.decode()

    assert 'value="52"' in page and "hush" not in page and "<option selected>release" in page


def test_resume_from_failure_and_from_a_task(act: Client) -> None:
    flow = make_flow(timezone.now())
    failed, done = make_run(flow, timezone.now(), "FAILED"), make_run(flow, timezone.now())
    make_tasks(failed, "COMPLETED", "FAILED", "SKIPPED")
    htmx = {"HX-Request": "true"}

    whole = act.post(f"/runs/{failed.pk}/resume/", headers=htmx)
    part = act.post(f"/runs/{failed.pk}/resume/", {"from_task": "train", "call": "0"})
    refused = act.post(f"/runs/{done.pk}/resume/", headers=htmx)
    unknown = act.post(f"/runs/{failed.pk}/resume/", {"from_task": "keep", "call": "²"}, headers=htmx)

    second, first = Run.objects.filter(resume_of=failed)
    assert (whole["HX-Redirect"], part["Location"]) == (first.get_absolute_url(), second.get_absolute_url())
    assert (first.resume_from, second.resume_from, second.resume_before) == ("", "train", 2)
    assert (first.triggered_by, refused.status_code, unknown.status_code) == ("operator", 409, 422)


def test_cancel_retry_and_their_refusals(act: Client) -> None:
    flow = make_flow(timezone.now())
    waiting, done = make_run(flow, timezone.now(), "PENDING"), make_run(flow, timezone.now())
    htmx = {"HX-Request": "true"}

    assert "cancelled" in act.post(f"/runs/{waiting.pk}/cancel/", headers=htmx).content.decode()
    again = act.post(f"/runs/{done.pk}/retry/", headers=htmx)
    refused = act.post(f"/runs/{done.pk}/cancel/", headers=htmx)

    waiting.refresh_from_db()
    assert waiting.state == "CANCELLED"
    assert again["HX-Redirect"] == Run.objects.get(rerun_of=done).get_absolute_url()
    assert refused.status_code == 409 and refused["HX-Retarget"] == "#toasts"
    assert "nothing to cancel" in refused.content.decode()


def test_pause_and_resume_name_who(act: Client) -> None:
    make_house(timezone.now())
    schedule = Schedule.objects.get()

    act.post(f"/schedules/{schedule.pk}/pause/", {"from": "/schedules/"})
    paused = act.get("/schedules/").content.decode()
    act.post(f"/schedules/{schedule.pk}/resume/")

    assert "by operator" in paused
    schedule.refresh_from_db()
    assert schedule.paused_at is None


def test_a_form_cannot_send_the_browser_to_another_site(act: Client) -> None:
    make_house(timezone.now())

    answer = act.post(f"/schedules/{Schedule.objects.get().pk}/pause/", {"from": "//evil.example/"})

    assert answer["Location"] == "/"


def test_actions_are_protected_against_forgery(operator: Any) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator)
    flow = make_flow(timezone.now())

    assert strict.post(f"/flows/{flow.slug}/run/").status_code == 403
    token = re.search(r'name="csrf" content="(\w+)"', strict.get("/").content.decode())
    assert token is not None
    assert strict.post(f"/flows/{flow.slug}/run/", headers={"X-CSRFToken": token[1]}).status_code == 302


# ------------------------------------------------------------------------------------------------------- the log


def test_the_log_shows_its_end_and_older_lines_by_key(see: Client) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now())
    make_lines(run, 1200)

    page = see.get(f"/runs/{run.pk}/").content.decode()
    older = see.get(f"/runs/{run.pk}/_log/?rows=1&before=701").content.decode()

    assert page.count('<p id="L') == 500 and 'id="L1200"' in page and 'id="L700"' not in page
    assert "before=701" in page
    assert 'id="L700"' in older and 'id="L201"' in older and 'id="L200"' not in older and "<section" not in older


def test_the_log_is_searched_on_the_server_and_narrowed_by_level(see: Client) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now(), warning_count=0, error_count=1)
    make_lines(run, 20)
    make_lines(run, 1, "no space left", level=40)

    found = see.get(f"/runs/{run.pk}/_log/?find=SPACE").content.decode()
    errors = see.get(f"/runs/{run.pk}/_log/?level=error").content.decode()

    assert found.count('<p id="L') == errors.count('<p id="L') == 1 and "1 line" in found


def test_a_line_that_has_not_ended_is_shown_below_the_log_and_pushed(see: Client) -> None:
    now = timezone.now()
    run = make_run(make_flow(now), now, state="RUNNING")
    make_lines(run, 3)
    line = [now.timestamp(), 30, None, "\x1b[31m 50%\x1b[0m <b>"]
    attempt = Attempt.objects.create(run=run, number=1, offered_at=now, open_lines=[line])
    Run.objects.filter(pk=run.pk).update(fence=attempt.pk)

    page = see.get(f"/runs/{run.pk}/").content.decode()
    drawing = topics.render(f"run:{run.pk}:log", None, whole=True, since=3)

    shown = '<span class="a31"> 50%</span> &lt;b&gt;</span>'
    assert shown in page and page.count('id="log-open"') == 1
    assert [(key, shown in message["html"]) for key, message in drawing.messages] == [("#log-open", True)]

    Run.objects.filter(pk=run.pk).update(state="CRASHED", finished_at=now)
    assert shown not in see.get(f"/runs/{run.pk}/").content.decode()


def test_a_line_is_found_by_its_number(see: Client) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now())
    make_lines(run, 2000)

    assert 'id="L600"' in see.get(f"/runs/{run.pk}/_log/?line=600").content.decode()


def test_downloads_have_all_lines(see: Client) -> None:
    run = make_run(make_flow(timezone.now()), timezone.now())
    make_lines(run, 1500, "\x1b[31mline {}\x1b[0m")

    text = b"".join(read_all(see.get(f"/runs/{run.pk}/download.log"))).decode()
    lines = b"".join(read_all(see.get(f"/runs/{run.pk}/download.jsonl"))).decode().splitlines()

    assert len(text.splitlines()) == 1500 and text.splitlines()[-1].endswith("line 1500") and "\x1b" not in text
    assert len(lines) == 1500 and '"seq": 1500' in lines[-1]


def read_all(response: Any) -> list[bytes]:
    async def gather() -> list[bytes]:
        return [part async for part in response.streaming_content]

    return async_to_sync(gather)()


def test_no_permission_no_page(client: Client, make_user: Any) -> None:
    client.force_login(make_user("", "nobody"))

    assert client.get("/").status_code == 403
    assert Permission.objects.filter(codename="view_run").exists()


def test_an_archived_flow_leaves_the_library_but_keeps_its_page(see: Client) -> None:
    flow = make_flow(timezone.now())
    Flow.objects.update(archived=True)

    assert flow.name not in see.get("/").content.decode()
    assert see.get(f"/flows/{flow.slug}/").status_code == 200
