"""Artifacts on the pages and in the API: what is hostile in them stays text, what is long is cut and says so."""

from __future__ import annotations

import base64
import html
import json
import re
import time
import uuid
from typing import Any

import pytest
from django.test import Client
from perfect_client.wire import messages as p

from perfect_site.dashboard import artifact_presenters, markdown, topics
from runs.models import Artifact, Run, uuid7

from .conftest import FakeWorker, seconds

pytestmark = pytest.mark.django_db
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LEAVING = 'rel="noopener noreferrer" target="_blank"'
HOSTILE = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


def written(kind: str, data: str = "", **more: Any) -> p.ArtifactWritten:
    return p.ArtifactWritten(seconds(1), str(uuid.uuid4()), kind, data=data, **more)


@pytest.fixture
def show(worker: Any, run: Run):
    """Say what the run shows; gives the run as it is then."""
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()), p.TaskStarted(seconds(), 1, "extract", "extract"))
    said = [2]

    def show(*facts: p.ArtifactWritten) -> Run:
        worker.say(order, *facts, first=said[0] + 1)
        said[0] += len(facts)
        return Run.objects.select_related("flow").get(pk=run.pk)

    return show


@pytest.fixture
def browser(client: Client, make_user: Any) -> Client:
    client.force_login(make_user("viewer"))
    return client


@pytest.fixture
def call(client: Client, make_token: Any):
    secret = make_token("read")

    def call(path: str) -> Any:
        response = client.get(f"/api{path}", headers={"Authorization": f"Bearer {secret}"})
        response.data = json.loads(response.content)
        return response

    return call


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, response
    return response.content.decode()


def only(**where: Any) -> Artifact:
    return Artifact.objects.get(**where)


# ------------------------------------------------------------------------------------------------------- the run page


def test_a_run_that_shows_nothing_has_a_hidden_section_and_no_query(browser, run, django_assert_num_queries):
    assert re.search(r'id="run-artifacts"[^>]* hidden>', page(browser, f"/runs/{run.pk}/"))
    with django_assert_num_queries(0):
        assert artifact_presenters.panel_of(run).exhibits == ()


def test_each_kind_is_drawn_as_what_it_is(browser, show):
    run = show(
        written("markdown", "# Sales\n\n| a | b |\n|--:|---|\n| 1 | 2 |\n", key="report", description="Of the week"),
        written("table", '{"columns":["name","n"],"rows":[["<b>x</b>",1.5],["y",null],[true,-3]]}', task=1),
        written("link", '{"link":"https://example.org/a?b=1&c=2","text":"the data"}'),
        written("progress", "42.5", key="rows"),
        written("plot", HOSTILE, key="curve"),
        written("image", "", coded=base64.b64encode(PNG).decode()),
    )

    text = page(browser, f"/runs/{run.pk}/")

    assert "<h4>Sales</h4>" in text and '<th class="at-right">a</th>' in text and "Of the week" in text
    assert '<th scope="col">name</th><th scope="col" class="n">n</th>' in text
    assert (
        '<td>&lt;b&gt;x&lt;/b&gt;</td><td class="n">1.5</td>' in text and '<td>true</td><td class="n">-3</td>' in text
    )
    assert '<a class="link" href="https://example.org/a?b=1&amp;c=2" rel="noopener noreferrer"' in text
    assert '<progress max="100" value="42.5" aria-label="rows"></progress><b class="mono nowrap">42.5 %</b>' in text
    assert f'src="/runs/{run.pk}/artifacts/{only(key="curve").uid}/picture" alt="curve"' in text
    assert "<script>alert" not in text and "style=" not in text
    assert "<span>extract</span>" in text
    assert text.index("curve") < text.index(">report<")  # newest first


def test_of_a_key_the_newest_is_shown_and_the_others_are_one_click_away(browser, show):
    run = show(*[written("markdown", f"version {n}", key="report") for n in range(3)], written("markdown", "other"))

    text, older = page(browser, f"/runs/{run.pk}/"), page(browser, f"/runs/{run.pk}/artifacts/?key=report")

    assert "version 2" in text and "version 1" not in text
    assert ">3 versions</a>" in text and ">all 4</a>" in text
    assert len(set(re.findall(r"/artifacts/([0-9a-f-]{36})/", older))) == 3
    everything = page(browser, f"/runs/{run.pk}/artifacts/")
    assert len(set(re.findall(r"/artifacts/([0-9a-f-]{36})/", everything))) == 4
    first = only(data="version 0")
    assert "version 0" in page(browser, f"/runs/{run.pk}/artifacts/{first.uid}/")


def test_many_are_not_all_drawn(browser, show):
    run = show(*[written("markdown", f"note {n}.") for n in range(45)])

    text = page(browser, f"/runs/{run.pk}/")

    assert "note 44." in text and "note 25." in text and "note 24." not in text
    assert ">all 45</a>" in text


def test_a_long_table_says_how_much_of_it_is_shown_and_can_be_had_whole(browser, show):
    rows = [[n, f"name {n}"] for n in range(5_000)]
    run = show(written("table", json.dumps({"columns": ["n", "name"], "rows": rows}), key="worst"))

    text = page(browser, f"/runs/{run.pk}/")
    own = page(browser, f"/runs/{run.pk}/artifacts/{only().uid}/")
    csv = browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/csv")
    whole = browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/json")

    assert "first 100 of 5,000 rows" in text and "name 99<" in text and "name 100<" not in text
    assert "first 1,000 of 5,000 rows" in own
    assert csv.content.decode().splitlines()[::5000] == ["n,name", "4999,name 4999"]
    assert csv.headers["Content-Disposition"] == f'attachment; filename="{run.short_id}-worst.csv"'
    assert json.loads(whole.content)["rows"] == rows


def test_a_text_that_a_spreadsheet_would_run_is_made_harmless():
    table = json.dumps({"columns": None, "rows": [["=1+1", "-5", "@x", "plain", -5, None]]})
    assert artifact_presenters.as_csv(table) == "'=1+1,-5,'@x,plain,-5,\r\n"


def test_a_long_text_is_cut_and_can_be_had_whole(browser, show):
    run = show(written("markdown", "A line of text.\n\n" * 5_000))

    assert "the beginning of 83.0\xa0KB" in page(browser, f"/runs/{run.pk}/")
    assert "the beginning" not in page(browser, f"/runs/{run.pk}/artifacts/{only().uid}/")
    assert len(browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/md").content) == 85_000


def test_a_page_of_many_reads_no_content(browser, show, django_assert_max_num_queries):
    run = show(*[written("table", json.dumps({"columns": None, "rows": [["x" * 4_000]] * 20})) for _ in range(20)])

    with django_assert_max_num_queries(3) as asked:
        wall = artifact_presenters.panel_of(run)
        assert all(exhibit.table.rows for exhibit in wall.exhibits)

    assert len(wall.exhibits) == 20
    assert not any('"content"' in query["sql"] or '"data"' in query["sql"] for query in asked.captured_queries)


def test_what_is_half_written_is_not_shown(browser, show):
    run = show(*[part for part in p.split_artifact(written("markdown", "x" * 200_000)) if part.part < 3])

    assert Artifact.objects.count() == 1
    assert " hidden>" in page(browser, f"/runs/{run.pk}/_artifacts/")
    assert browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/").status_code == 404


# ------------------------------------------------------------------------------------------------------ what is hostile


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "/logout/",
        "java\nscript:x",
        "https://a b",
        " javascript:x",
        "vbscript:x",
        "https://x\x01",
    ],
)
def test_a_link_to_anything_else_is_text(browser, show, link):
    run = show(written("link", json.dumps({"link": link, "text": "click"})))

    text = page(browser, f"/runs/{run.pk}/_artifacts/")

    assert "click <code>" in text
    assert f'href="{html.escape(link)}"' not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("a <img src=x onerror=alert(1)>", "&lt;img"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("[x](/logout/)", "[x](/logout/)"),
        ("<javascript:alert(1)>", "&lt;javascript"),
        ("![logo](https://e.example/x.png)", f'<a href="https://e.example/x.png" {LEAVING}>logo</a>'),
        ("[![logo](https://e.example/x.png)](https://e.example/)", f'<a href="https://e.example/" {LEAVING}>logo</a>'),
        ("![logo](data:image/png;base64,AA==)", "![logo](data:"),
        ('[x](https://e.example/"onmouseover=alert(1))', "%22onmouseover"),
        ("| a |\n|:-:|\n| <b> |", '<td class="at-center">&lt;b&gt;</td>'),
        ("# one\n\n###### six", "<h4>one</h4>\n<h6>six</h6>"),
        ("~~gone~~", "<s>gone</s>"),
        ("&lt;script&gt;", "&lt;script&gt;"),
    ],
)
def test_markdown_brings_in_nothing_that_runs_or_loads(text, shown):
    made = markdown.rendered(text)

    assert shown in made
    assert not re.search(r"<(script|img|iframe|style|svg)", made)
    assert not re.search(r"<[^>]*(\son\w+=|style=|href=\"(?!https?:|mailto:))", made)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 16_000,
        "*a_" * 10_000,
        "> " * 16_000,
        "![a](" * 6_000,
        "`" * 32_000,
        "|a" * 16_000,
        "- " * 16_000,
        "<" * 32_000,
        "&" * 32_000,
        "[a](b" * 6_000,
        "***" * 10_000,
    ],
)
def test_markdown_made_to_be_slow_is_not(text):
    begun = time.perf_counter()
    markdown.rendered(text)
    assert time.perf_counter() - begun < 5


def test_a_picture_is_served_as_what_its_bytes_are_and_can_do_nothing(browser, show):
    run = show(written("plot", HOSTILE, key="a"), written("image", "", coded=base64.b64encode(PNG).decode(), key="b"))

    for key, kind, content in (("a", "image/svg+xml", HOSTILE.encode()), ("b", "image/png", PNG)):
        response = browser.get(f"/runs/{run.pk}/artifacts/{only(key=key).uid}/picture")
        assert (response.headers["Content-Type"], response.content) == (kind, content)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith(
            "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        )
        assert response.headers["Content-Disposition"].startswith("inline; filename=")
        assert browser.get(f"/runs/{run.pk}/artifacts/{only(key=key).uid}/csv").status_code == 404


def test_a_download_is_no_page(browser, show):
    run = show(written("markdown", "<script>alert(1)</script>", key="x"))
    response = browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/md")
    assert response.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/picture").status_code == 404


def test_an_artifact_is_found_only_under_its_own_run(browser, show, flow, now):
    show(written("markdown", "x"))
    other = Run.objects.create(flow=flow, state="PENDING", trigger="page", created_at=now)
    assert browser.get(f"/runs/{other.pk}/artifacts/{only().uid}/").status_code == 404
    assert browser.get(f"/runs/{other.pk}/artifacts/{only().uid}/md").status_code == 404


def test_a_picture_from_elsewhere_is_named_and_shown_only_on_its_own_page(browser, show):
    run = show(written("image", "https://cdn.example.com:8443/a/b.png?x=1"))
    path = f"/runs/{run.pk}/artifacts/{only().uid}/"

    on_the_run, alone = browser.get(f"/runs/{run.pk}/"), browser.get(path)

    assert "A picture on <b>cdn.example.com:8443</b>" in on_the_run.content.decode()
    assert "cdn.example.com" not in on_the_run.headers["Content-Security-Policy"]
    assert '<img src="https://cdn.example.com:8443/a/b.png?x=1"' in alone.content.decode()
    policy = dict(part.strip().split(" ", 1) for part in alone.headers["Content-Security-Policy"].split(";"))
    assert policy["img-src"] == "'self' data: https://cdn.example.com:8443"
    assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://a.com;script-src *",
        "https://user:pw@a.com/x",
        "https://a.com\\@b.com/",
        "//a.com/x.png",
        "https://*/x",
        "s3://bucket/x.png",
        "https://a.com/ x",
        "https://a.com\n",
        "https://[::1]/x",
    ],
)
def test_an_address_that_is_not_plain_opens_no_policy(browser, show, url):
    run = show(written("image", url))

    response = browser.get(f"/runs/{run.pk}/artifacts/{only().uid}/")

    assert "<img" not in response.content.decode()
    assert "img-src 'self' data:;" in response.headers["Content-Security-Policy"] + ";"


# ------------------------------------------------------------------------------------------------------------ live, API


def drawn(run: Run, memory: Any = None, since: int = 0) -> tuple[dict[str, Any], Any]:
    drawing = topics.render(f"run:{run.pk}", memory, whole=False, since=since)
    return dict(drawing.messages), drawing.memory


def test_a_page_that_watches_gets_what_is_new_and_nothing_twice(show, run, monkeypatch):
    _, memory = drawn(run)
    monkeypatch.setattr(topics, "WALL_EVERY", 0.0)

    shown = show(written("progress", "10.0", key="rows"))
    first, memory = drawn(shown, memory)
    second, memory = drawn(shown, memory)

    assert 'value="10.0"' in first["#run-artifacts"]["html"]
    assert "#run-artifacts" not in second
    fresh, _ = drawn(shown, None, since=shown.version)  # made from this very version
    assert "#run-artifacts" not in fresh


def test_a_run_that_shows_very_much_is_redrawn_once_a_second_and_at_its_end(show, worker):
    show(written("markdown", "one"))
    run = Run.objects.get()
    messages, memory = drawn(run)
    assert "#run-artifacts" in messages

    messages, memory = drawn(show(written("markdown", "two")), memory)
    assert "#run-artifacts" not in messages

    Run.objects.all().update(state="COMPLETED", progress=100, finished_at=run.created_at)
    messages, memory = drawn(run, memory)
    assert "two" in messages["#run-artifacts"]["html"]


def test_the_api_tells_them_in_order_and_in_pages(call, show):
    run = show(
        written("markdown", "# a", key="k", description="d", task=1),
        written("table", '{"columns":null,"rows":[[1,"x"]]}'),
        written("progress", "7.5"),
        written("link", '{"link":"https://e.example/","text":""}'),
        written("plot", "<svg/>", key="k"),
    )

    first = call(f"/runs/{run.pk}/artifacts?limit=3").data
    second = call(f"/runs/{run.pk}/artifacts?limit=3&cursor={first['next_cursor']}").data

    assert [item["data"] for item in first["items"]] == ["# a", {"columns": None, "rows": [[1, "x"]]}, 7.5]
    assert first["items"][0] | {"id": "", "url": ""} == {
        "id": "",
        "url": "",
        "kind": "markdown",
        "key": "k",
        "description": "d",
        "task": "extract",
        "attempt": 1,
        "created_at": "2026-03-02T12:00:01.000Z",
        "updated_at": "2026-03-02T12:00:01.000Z",
        "data": "# a",
    }
    assert second["items"][0]["data"] == {"link": "https://e.example/", "text": ""}
    assert second["items"][1]["data"] == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()
    assert second["next_cursor"] is None
    assert [item["kind"] for item in call(f"/runs/{run.pk}/artifacts?key=k").data["items"]] == ["markdown", "plot"]
    assert call(f"/runs/{run.pk}/artifacts?cursor=x").status_code == 422


def test_an_answer_of_the_api_is_bounded(call, show, monkeypatch):
    run = show(*[written("markdown", "x" * 90_000) for _ in range(5)])
    monkeypatch.setattr(artifact_presenters, "ANSWER_BYTES", 200_000)

    answer = call(f"/runs/{run.pk}/artifacts").data

    assert (len(answer["items"]), bool(answer["next_cursor"])) == (2, True)


def test_the_console_lists_them_for_a_run_and_changes_none(browser, show, make_user):
    run = show(written("markdown", "x" * 50_000, key="report"))
    console = Client()
    console.force_login(make_user("admin"))

    listing = page(console, f"/admin/runs/artifact/?run__id__exact={run.pk}")
    detail = page(console, f"/admin/runs/artifact/{only().pk}/change/")

    assert "report" in listing
    assert "x" * 100 in detail or "report" in detail
    assert len(detail) < 60_000 + 50_000 and 'name="_save"' not in detail
    assert "artifacts</a>" in page(console, f"/admin/runs/run/{run.pk}/change/")


def test_what_a_sub_run_shows_stands_on_its_page_and_on_its_callers(
    worker: FakeWorker, run: Run, client: Client, viewer: Any
) -> None:
    order, pk, at = worker.take(), uuid7(), seconds()
    worker.say(
        order,
        p.RunStarted(at, 7),
        p.ArtifactWritten(at, str(uuid.uuid4()), "markdown", data="of the caller"),
        p.TaskStarted(at, 1, "child", "Child", kind="flow"),
        p.SubRunStarted(at, str(pk), 1, "Child"),
        p.TaskStarted(at, 2, "fetch", "fetch", parent=1),
        p.ArtifactWritten(at, str(uuid.uuid4()), "markdown", data="of its task", task=2),
        p.ArtifactWritten(at, str(uuid.uuid4()), "markdown", data="of its body", task=1),
    )
    client.force_login(viewer)

    def shown(of: object) -> list[str]:
        page = client.get(f"/runs/{of}/").content.decode()
        return [text for text in ("of the caller", "of its task", "of its body") if text in page]

    assert shown(run.pk) == ["of the caller", "of its task", "of its body"]
    assert shown(pk) == ["of its task", "of its body"]
    for artifact in Run.objects.get(pk=run.pk).artifacts.all():
        assert client.get(f"/runs/{pk}/artifacts/{artifact.uid}/").status_code == (200 if artifact.subrun else 404)
