"""The history: filters that live in the address, and pages by key."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from flows.models import Flow
from perfect_site.dashboard import run_filters
from perfect_site.dashboard.presenters import as_id, id_at
from perfect_site.dashboard.run_filters import page_of
from runs.models import Run

from .pages import make_flow, make_run

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def see(client: Client, viewer: object) -> Client:
    client.force_login(viewer)  # type: ignore[arg-type]
    return client


@pytest.fixture
def flow(db: None) -> Flow:
    return make_flow(NOW)


def ids_on(client: Client, address: str) -> list[uuid.UUID]:
    page = client.get(address).content.decode()
    return [uuid.UUID(text) for text in re.findall(r'<tr data-run="([0-9a-f-]{36})"', page)]


def test_an_id_can_be_found_whole_or_by_its_end(see: Client, flow: Flow) -> None:
    run, _other = make_run(flow, NOW), make_run(flow, NOW)

    assert see.get(f"/runs/?q={run.pk}")["Location"] == f"/runs/{run.pk}/"
    assert ids_on(see, f"/runs/?q={run.short_id}") == [run.pk]


@pytest.mark.parametrize("q", ["churn", "s3://bucket", "DISK full", "nightly"])
def test_text_is_found_in_name_parameters_error_and_tags(see: Client, flow: Flow, q: str) -> None:
    other = make_flow(NOW, "Other")
    run = make_run(flow, NOW, "FAILED", parameters={"to": "s3://bucket/x"}, error="disk full", tags=["nightly"])
    make_run(other, NOW)

    assert ids_on(see, f"/runs/?q={q}") == [run.pk]


def test_state_flow_tag_and_dates_narrow_together(see: Client, flow: Flow) -> None:
    other = make_flow(NOW, "Other")
    wanted = make_run(flow, NOW, "FAILED", tags=["a", "b"])
    make_run(flow, NOW, "FAILED", tags=["ab"])
    make_run(flow, NOW, "COMPLETED", tags=["a"])
    make_run(other, NOW, "FAILED", tags=["a"])
    make_run(flow, NOW - timedelta(days=2), "FAILED", tags=["a"])

    address = "/runs/?state=FAILED&state=CRASHED&flow=churn-model&tag=a&since=2026-03-02&until=2026-03-02"

    assert ids_on(see, address) == [wanted.pk]


def test_pending_means_offered_too(see: Client, flow: Flow) -> None:
    run = make_run(flow, NOW, "OFFERED")

    assert ids_on(see, "/runs/?state=PENDING") == [run.pk]


@pytest.mark.parametrize("query", ["state=NOPE", "flow=nope", "since=yesterday", "q=%00"])
def test_nonsense_in_the_address_is_no_error(see: Client, flow: Flow, query: str) -> None:
    make_run(flow, NOW)

    assert see.get(f"/runs/?{query}").status_code == 200


def test_a_filter_that_matches_nothing_offers_a_way_out(see: Client, flow: Flow) -> None:
    assert "Clear the filters" in see.get("/runs/?state=LOST").content.decode()


def test_pages_lead_through_the_whole_history_and_back(see: Client, flow: Flow) -> None:
    made = [make_run(flow, NOW + timedelta(seconds=number)).pk for number in range(120)]
    made.reverse()
    seen: list[uuid.UUID] = []
    address = "/runs/?state=COMPLETED"

    while address:
        page = see.get(address).content.decode()
        seen += ids_on(see, address)
        older = re.search(r'rel="next" href="([^"]+)"', page)
        last, address = address, older[1].replace("&amp;", "&") if older else ""
    newer = re.search(r'rel="prev" href="([^"]+)"', see.get(last).content.decode())

    assert seen == made
    assert newer is not None and "state=COMPLETED" in newer[1]
    assert ids_on(see, newer[1].replace("&amp;", "&")) == made[50:100]


def test_several_states_are_merged_in_order(flow: Flow) -> None:
    made = [
        make_run(flow, NOW + timedelta(seconds=number), state).pk
        for number, state in enumerate(["FAILED", "CRASHED", "COMPLETED", "FAILED", "CRASHED"])
    ]

    ids, newer, older = page_of(Run.objects.all(), ["FAILED", "CRASHED"], size=3)
    rest, _, more = page_of(Run.objects.all(), ["FAILED", "CRASHED"], before=ids[-1], size=3)

    assert (ids, newer, older) == ([made[4], made[3], made[1]], False, True)
    assert (rest, more) == ([made[0]], False)


def test_a_search_for_text_looks_at_the_newest_runs_only(
    flow: Flow, see: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_filters, "SEARCHED", 3)
    old, *_newer = [make_run(flow, NOW + timedelta(days=number), "FAILED", error="disk full") for number in range(4)]

    assert old.pk not in ids_on(see, "/runs/?q=disk")
    assert ids_on(see, f"/runs/?q=disk&until={NOW:%Y-%m-%d}") == [old.pk]


def test_the_list_alone_tells_the_address_bar_where_it_is(see: Client, flow: Flow) -> None:
    make_run(flow, NOW)

    answer = see.get("/runs/_list/?push=1&state=COMPLETED", headers={"HX-Request": "true"})

    assert answer["HX-Push-Url"] == "/runs/?state=COMPLETED"
    assert "<html" not in answer.content.decode()


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_an_id_of_a_moment_sorts_before_every_id_made_then(moment: datetime) -> None:
    made = uuid.UUID(int=id_at(moment).int | 0x7 << 76 | 0x2 << 62)

    assert id_at(moment) <= made < id_at(moment + timedelta(milliseconds=2))


@pytest.mark.parametrize("text", ["", "xyz", "0123", "g" * 32, "0" * 33])
def test_what_is_no_id_is_none(text: str) -> None:
    assert as_id(text) is None
